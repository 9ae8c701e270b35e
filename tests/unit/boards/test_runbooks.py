"""The runbooks: one for each alert; each command, query, log line, setting and alert that they name exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from app.cli.athena import app as athena_commands
from app.cli.delivery import app as delivery_commands
from app.cli.main import app as commands
from app.cli.sink import app as sink_commands
from app.settings import Settings
from tests.worlds.boards import RUNBOOKS, Runbook, alerts, faults_in, parse_with_promtool, read_runbook
from tests.worlds.documents import ROOT

BOOKS = [read_runbook(file) for file in RUNBOOKS]
NAMES = {alert.name for alert in alerts()}
SECTIONS = ["What it means", "What to look at", "What to do", "It is over when"]
SAMPLES = {
    "BATCH_ID": "01890a5d-ac96-774b-bcce-b302099a8057", "TXN_ID": "1-0-1-0123456789abcdef", "SINCE": "2026-11-28T03",
    "EVENT_ID": "e-1", "LINE": "0", "HOUR": "2026-11-28T03",
}  # fmt: skip
"""The words that an operator puts in."""
OF_DAMAGE = {"LinesLost", "LinesDoubled", "BatchDamaged", "LedgerDamaged", "Quarantine", "BooksUnbalanced"}
ACTED_ON = {"status", "trace", "prove", "audit", "repair", "replay", "athena", "wait"}
SOURCES = "".join(file.read_text() for top in ("app", "agents", "tables") for file in (ROOT / top).rglob("*.py"))
GROUPS = {"sink": sink_commands, "delivery": delivery_commands, "athena": athena_commands}


def parse(line: str) -> None:
    """Parse a command line as `instream` does, and do not run it."""
    words = [SAMPLES.get(word, word) for word in shlex.split(line)]
    assert words.pop(0) == "instream"
    group = GROUPS.get(words[0])
    if group is not None:
        words.pop(0)
    known = typer.main.get_group(group or commands)
    found = known.get_command(known.make_context("instream", [words[0]], resilient_parsing=True), words[0])
    assert found is not None, f"{words[0]} is no command"
    found.make_context(words[0], words[1:]).close()


def log_lines(text: str) -> list[str]:
    """The events that a text names behind "log line" or "log lines"."""
    lists = re.findall(r"log lines? ((?:`[^`]+`(?:, | and )?)+)", text)
    return [event for events in lists for event in events.split("`")[1::2]]


def test_every_alert_has_its_runbook_and_no_runbook_is_left_over() -> None:
    assert {file.stem for file in RUNBOOKS} == NAMES


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
def test_a_runbook_says_meaning_looks_deeds_and_the_end(book: Runbook) -> None:
    assert list(book.sections) == SECTIONS
    assert book.title.startswith(f"{book.name}: ")
    assert all(text.strip() for text in book.sections.values())
    for section in ("What to look at", "It is over when"):
        assert book.commands(section) or book.queries(section), f"{book.name}: {section} shows no command and no query"


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
def test_its_commands_can_be_run(book: Runbook) -> None:
    for line in [*book.commands(), *re.findall(r"`(instream [^`]+)`", " ".join(book.prose.split()))]:
        parse(line)


def test_the_commands_that_know_what_is_wrong_are_in_use() -> None:
    used = {line.split()[1] for book in BOOKS for line in book.commands()}
    assert ACTED_ON - used == set()


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
def test_damage_is_looked_at_before_it_is_mended(book: Runbook) -> None:
    lines = book.commands()
    for at, line in enumerate(lines):
        if line.endswith(" --apply"):
            looks = {line.removesuffix(" --apply"), "instream audit --deep --since SINCE"}
            assert looks & {*lines[:at]}, f"nothing before `{line}` shows what it will do"
    assert book.name not in OF_DAMAGE or any(line.startswith("instream repair ") for line in lines)


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
def test_its_queries_ask_for_series_that_exist(book: Runbook) -> None:
    assert [(query, fault) for query in book.queries() for fault in faults_in(query)] == []


def test_promtool_parses_every_query(tmp_path: Path) -> None:
    parse_with_promtool([query for book in BOOKS for query in book.queries()], tmp_path)
    with pytest.raises(AssertionError, match="parse error"):
        parse_with_promtool(["sum by (role) instream_ready)"], tmp_path)


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
def test_what_it_names_in_its_text_exists(book: Runbook) -> None:
    text = " ".join(book.prose.split())
    spans = set(re.findall(r"`([^`]+)`", text))
    named = {span for span in spans if re.fullmatch(r"(?:[A-Z][a-z]+){2,}|Quarantine", span)}
    assert named - NAMES == set(), "no such alert"
    assert [line for line in log_lines(text) if f'"{line}"' not in SOURCES] == [], "no such log line"
    known = {name.upper() for name in Settings.model_fields}
    capitals = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text))
    assert {name.removeprefix("INSTREAM_") for name in capitals} - known - set(SAMPLES) == set(), "no such setting"


def test_the_checks_find_what_they_check() -> None:
    assert sum(len(book.commands()) for book in BOOKS) > 60
    assert sum(len(book.queries()) for book in BOOKS) > 60
    assert log_lines("The log lines `a b`, `c` and `d` name keys.") == ["a b", "c", "d"]
    assert len([event for book in BOOKS for event in log_lines(" ".join(book.prose.split()))]) > 10


def test_the_parser_of_commands_sees_one_that_does_not_exist() -> None:
    with pytest.raises(AssertionError, match="is no command"):
        parse("instream audot")
    with pytest.raises(Exception, match="No such option"):
        parse("instream audit --deeply")
    with pytest.raises(Exception, match="Missing parameter: txn_id"):
        parse("instream delivery release")
