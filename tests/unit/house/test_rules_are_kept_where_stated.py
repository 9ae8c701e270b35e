"""RULES.md points at real code: each place of a rule exists, and it, or its module, names the rule that it keeps."""

import re
from typing import NamedTuple

import pytest

from tests.worlds.documents import ROOT, Place, fault_of, module_docstring, place_in, symbols

RULES = (ROOT / "app" / "core" / "RULES.md").read_text()
LAST = {"T": 5, "E": 10, "J": 6, "S": 5, "D": 5, "A": 4}
"""Of each group the number of its last rule."""


class Section(NamedTuple):
    """What RULES.md says of one rule."""

    rule: str
    text: str

    @property
    def places(self) -> list[Place]:
        """The code that keeps it."""
        kept_by = self.text.partition("**Kept by**")[2].partition(".\n")[0]
        return [place for span in re.findall(r"`([^`]+)`", kept_by) if (place := place_in(span)) is not None]


SECTIONS = [
    Section(rule, text)
    for rule, text in re.findall(r"^### ([TEJSDA]\d+) .*?\n(.*?)(?=^##|\Z)", RULES, re.MULTILINE | re.DOTALL)
]
PLACES = [(section.rule, place) for section in SECTIONS for place in section.places]


def names(text: str, rule: str) -> bool:
    """Whether a text names a rule: by itself, or inside a span such as "rules E1 to E6"."""
    letter, number = rule[0], int(rule[1:])
    spans = re.findall(rf"\b{letter}(\d+)(?:-| to ){letter}?(\d+)\b", text)
    return re.search(rf"\b{rule}\b", text) is not None or any(int(low) <= number <= int(high) for low, high in spans)


def test_the_rules_of_each_group_are_numbered_without_a_gap() -> None:
    found = {letter: [int(section.rule[1:]) for section in SECTIONS if section.rule[0] == letter] for letter in LAST}
    assert found == {letter: list(range(1, last + 1)) for letter, last in LAST.items()}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.rule)
def test_a_rule_says_what_holds_what_happened_without_it_and_who_keeps_it(section: Section) -> None:
    parts = re.split(r"^\*\*(What holds\.|Without it\.|Kept by)\*\*", section.text, flags=re.MULTILINE)
    assert parts[1::2] == ["What holds.", "Without it.", "Kept by"]
    assert all(len(part.split()) >= 15 for part in parts[2:6:2]), "a sentence or two"
    assert len(section.places) >= 2


@pytest.mark.parametrize(("rule", "place"), PLACES, ids=str)
def test_the_symbol_or_its_module_names_the_rule(rule: str, place: Place) -> None:
    assert (fault := fault_of(place)) is None, f"{place}: {fault}"
    assert place.symbol, f"{place}: say which symbol keeps {rule}"
    file = ROOT / place.path
    said = [symbols(file)[place.symbol].docstring, module_docstring(file)]
    assert any(names(text, rule) for text in said), f"the docstring of {place}, or its module's, does not name rule {rule}"


def test_the_check_sees_a_violation() -> None:
    assert fault_of(Place("app/core/nowhere.py", "x")) == "no such file or folder"
    assert fault_of(Place("app/core/rules.py", "JoinRules.nothing")) == "no JoinRules.nothing in it"
    assert fault_of(Place("app/core/rules.py", "JoinRules.upper_ms")) is None
    assert names("keeps rule E7", "E7")
    assert names("rules E1 to E6", "E3")
    assert names("T1-T4", "T4")
    assert not names("rule E10", "E1")
    assert not names("rules E1 to E6", "J3")
