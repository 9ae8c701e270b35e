"""The documents are true to the tree: every path, symbol, link, command, target and setting that they name exists."""

import re
from fnmatch import fnmatch

import pytest
import typer.main

from app.cli.delivery import app as delivery_commands
from app.cli.main import app as commands
from app.cli.sink import app as sink_commands
from tests.worlds.documents import (
    DOCUMENTS,
    ROOT,
    TOP_LEVEL,
    Place,
    fault_of,
    links,
    place_in,
    read,
    shell_lines,
    spans,
    symbols,
)

PLACES = [(document, place) for document in DOCUMENTS for span in spans(document) if (place := place_in(span)) is not None]
ARCHITECTURE = "app/ARCHITECTURE.md"
CODE = [file for top in ("app", "agents", "tables", "tests") for file in sorted((ROOT / top).rglob("*.py"))]
NOT_OURS = {"app.tables"}
"""Names of libraries that look like modules of ours: Faust's `app.tables`."""
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def headings(document: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", read(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def names_of(app: typer.Typer) -> set[str]:
    group = typer.main.get_command(app)
    return set(group.list_commands(None))  # type: ignore[attr-defined]


@pytest.mark.parametrize(("document", "place"), PLACES, ids=str)
def test_a_place_exists(document: str, place: Place) -> None:
    assert (fault := fault_of(place)) is None, f"{document} names `{place}`: {fault}"


def test_a_member_that_is_named_without_its_file_exists() -> None:
    known = {name for file in CODE if not file.is_relative_to(ROOT / "tests") for name in symbols(file)}
    member = re.compile(r"[A-Z]\w*[a-z]\w*\.\w+")
    named = [(document, span) for document in DOCUMENTS for span in spans(document) if member.fullmatch(span)]
    assert named
    assert [(document, span) for document, span in named if span not in known] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = ((ROOT / document).parent / path).resolve() if path else ROOT / document
        assert target.exists(), f"{document} links {link}"
        if anchor:
            assert anchor in headings(str(target.relative_to(ROOT))), f"{document} links {link}: no such heading"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_targets_exist(document: str) -> None:
    known = {"": names_of(commands), "sink": names_of(sink_commands), "delivery": names_of(delivery_commands)}
    for span in [*spans(document), *shell_lines(document)]:
        words = [word for word in span.removeprefix(".venv/bin/").split() if re.fullmatch(r"[a-z-]+", word)]
        if words[:1] == ["instream"] and len(words) > 1:
            assert words[1] in known[""], f"{document}: `{span}` is no command"
            if words[1] in known and len(words) > 2:
                assert words[2] in known[words[1]], f"{document}: `{span}` is no command"
        if words[:1] == ["make"] and len(words) > 1:
            assert words[1] in TARGETS, f"{document}: `{span}` is no target of the Makefile"


def test_the_architecture_tells_of_every_folder() -> None:
    folders = {file.parent.relative_to(ROOT).as_posix() for file in CODE} - set(TOP_LEVEL)
    told = [span for span in spans(ARCHITECTURE) if "/" in span]
    assert sorted(folder for folder in folders if not any(fnmatch(folder, pattern) for pattern in told)) == []
    rows = read(ARCHITECTURE).partition("## Where do I change ...?")[2]
    assert len(re.findall(r"^\| ", rows, flags=re.MULTILINE)) >= 22


def test_names_in_code_that_look_like_ours_are_ours() -> None:
    faults = []
    for file in CODE:
        for span in set(re.findall(r"`([^`\n]+)`", file.read_text())):
            place = place_in(span)
            if place is None or place.symbol or span in NOT_OURS or span.endswith((".py", ".md", ".toml", ".txt")):
                continue
            if (fault := fault_of(place)) is not None:
                faults.append(f"{file.relative_to(ROOT)}: `{span}`: {fault}")
    assert faults == []


def test_the_check_sees_a_violation() -> None:
    assert place_in("app/core/nowhere.py") == Place("app/core/nowhere.py")
    assert fault_of(Place("app/core/nowhere.py")) == "no such file or folder"
    assert fault_of(Place("app/core/rules.py", "JoinRule")) == "no JoinRule in it"
    assert fault_of(Place("app.core.rules.JoinRules.upper_ms")) is None
    assert fault_of(Place("app.core.rules.Nothing")) == "no such module or symbol"
    assert fault_of(Place("tests/unit/*")) is None
    assert fault_of(Place("tests/mutants/of_<part>.py")) is None
    assert fault_of(Place("tests/nothing_<part>.py")) == "no such file or folder"
    assert place_in("ready.json") is None
    assert place_in("data/ledger/") is None
