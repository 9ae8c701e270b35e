"""The command `instream` in this process: a process of its own costs a second of CPU, mostly for its imports."""

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Final, NamedTuple

import pytest
import structlog

from app.cli.main import main

OF_SIGNALS: Final = frozenset({"up", "demo"})
"""Commands that take signals for themselves, which a test's process must not."""


class Ran(NamedTuple):
    """The end of a command."""

    returncode: int
    stdout: str
    stderr: str


def run_here(*words: str, **environment: str) -> Ran:
    """Run `instream WORDS` with these variables besides this process's own."""
    assert OF_SIGNALS.isdisjoint(words[:1])
    logging_before = structlog.get_config()
    out, err = io.StringIO(), io.StringIO()
    try:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(os, "environ", os.environ.copy())
            os.environ.update(environment)
            patch.setattr(sys, "argv", ["instream", *words])
            with pytest.raises(SystemExit) as ended:
                main()
    finally:
        structlog.configure(**logging_before)
    return Ran(int(ended.value.code or 0), out.getvalue(), err.getvalue())
