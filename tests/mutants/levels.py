"""The levels of tests that are run against a mutant, each a command in a copy of the tree."""

import re
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from tests.mutants.mutant import Mutant

_FAILED_TEST: Final = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
_FAILED_SEED: Final = re.compile(r"^FAILED (seed .*)$", re.MULTILINE)
_PYTEST: Final = (
    sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "--tb=no", "--timeout=60", "-p", "no:cacheprovider",
    "-p", "tests.mutants.quick_failures",
)  # fmt: skip


class Outcome(NamedTuple):
    """What a level made of a mutant."""

    caught: bool
    by: str = ""
    """The first test, or seed, that noticed."""
    error: str = ""
    """Why the level says nothing about the mutant."""


class Level(Protocol):
    """One kind of tests."""

    name: str

    def command(self, mutants: Sequence[Mutant]) -> list[str]:
        """What is run for these mutants; nothing where they name none of its tests."""

    def judge(self, code: int, output: str) -> Outcome:
        """What the command's end means."""


class Tests:
    """The tests that a mutant names; the first that fails ends them."""

    name = "tests"

    def command(self, mutants: Sequence[Mutant]) -> list[str]:
        """Every file that these mutants name, once."""
        paths = dict.fromkeys(path for mutant in mutants for path in mutant.tests)
        return [*_PYTEST, *paths] if paths else []

    def judge(self, code: int, output: str) -> Outcome:
        """A failed test has caught it; pytest that could not collect has not."""
        return _judged(code, output, _FAILED_TEST)


class Simulation:
    """Seeded histories of the whole pipeline, the same ones for every mutant; the first that breaks a rule ends them."""

    name = "simulation"

    def __init__(self, seeds: int, first: int) -> None:
        self._arguments = [str(seeds), str(first)]

    def command(self, mutants: Sequence[Mutant]) -> list[str]:
        """The same for whatever mutants."""
        return [sys.executable, "-m", "tests.mutants.histories", *self._arguments] if mutants else []

    def judge(self, code: int, output: str) -> Outcome:
        """A broken invariant has caught it."""
        return _judged(code, output, _FAILED_SEED)


def _judged(code: int, output: str, failed: re.Pattern[str]) -> Outcome:
    if code == 0:
        return Outcome(caught=False)
    found = failed.search(output)
    if code == 1 and found is not None:
        return Outcome(caught=True, by=found[1])
    return Outcome(caught=False, error=f"ended with {code}: {output[-1500:]}")
