"""RULES.md points at real files, and each of those files names the rule it keeps."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RULES = (ROOT / "app" / "core" / "RULES.md").read_text()
ROWS = re.findall(r"^\| ([TEJSDA]\d) \| .* \| ([^|]+) \|$", RULES, flags=re.MULTILINE)
PLACES = [(rule, place) for rule, places in ROWS for place in re.findall(r"`([^`]+)`", places)]


def test_every_rule_has_a_place() -> None:
    numbers = {letter: [int(rule[1]) for rule, _ in ROWS if rule[0] == letter] for letter in "TEJSDA"}
    assert {letter: max(found) for letter, found in numbers.items()} == {"T": 5, "E": 9, "J": 5, "S": 5, "D": 5, "A": 2}
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


@pytest.mark.parametrize(("rule", "place"), PLACES)
def test_the_file_names_its_rule(rule: str, place: str) -> None:
    path = ROOT / place
    texts = [file.read_text() for file in ([path] if path.is_file() else sorted(path.glob("*.py")))]
    spans = re.findall(rf"\b{rule[0]}(\d)-{rule[0]}?(\d)", "\n".join(texts))
    named = any(re.search(rf"\b{rule}\b", text) for text in texts)
    assert named or any(int(low) <= int(rule[1]) <= int(high) for low, high in spans), f"{place} does not name {rule}"
