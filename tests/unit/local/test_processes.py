"""The last error in a process's log, as `instream status` shows it."""

import json
from pathlib import Path

import pytest

from app.local.stack.processes import ERROR_LENGTH, last_error


def line(level: str, event: str, **more: str) -> str:
    return json.dumps({"level": level, "event": event, **more})


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], ""),
        ([line("info", "fine"), line("warning", "hm")], ""),
        (
            [line("error", "old"), line("error", "load failed", error="disk\nfull"), line("info", "x")],
            "load failed: disk full",
        ),
        ([line("critical", "ends", exception="Traceback ...\nKeyError: 'a'")], "ends: KeyError: 'a'"),
        (["no JSON", "[1]", line("error", "boom"), '{"level": "err'], "boom"),
        ([line("error", "e" * 1000)], "e" * ERROR_LENGTH),
    ],
)
def test_the_last_error_is_one_short_line(tmp_path: Path, lines: list[str], expected: str) -> None:
    log = tmp_path / "etl.log"
    log.write_text("".join(text + "\n" for text in lines))
    assert last_error(log) == expected


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "etl.log"
    log.write_text(line("error", "long ago") + "\n" + (line("info", "x" * 1000) + "\n") * 100)
    assert last_error(log) == ""
    assert last_error(tmp_path / "none.log") == ""
