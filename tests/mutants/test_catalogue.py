"""The catalogue of planted bugs fits the tree: each can be planted, once, and names tests that exist."""

import subprocess
import sys

import pytest

from tests.mutants.catalogue import MUTANTS
from tests.mutants.levels import Simulation, Tests
from tests.mutants.mutant import TREE, Mutant

RUFF = [sys.executable, "-m", "ruff", "check", "--quiet", "--no-cache", "--select", "F821,F823", "-"]
PASSED = "12 passed in 3.4s"
FAILED = "F\nFAILED tests/unit/sink/test_chain.py::test_x - AssertionError\n1 failed in 3.4s"


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_it_can_be_planted_and_somebody_looks(mutant: Mutant) -> None:
    broken = mutant.applied()
    assert broken != (TREE / mutant.file).read_text()
    asked = subprocess.run(RUFF, input=broken, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, f"it would only raise NameError: {asked.stdout}"
    assert mutant.tests
    for path in mutant.tests:
        assert (TREE / path.split("::")[0]).is_file(), path


def test_names_are_unique_and_there_are_enough() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20


def test_what_does_not_occur_exactly_once_is_refused() -> None:
    for old in ("no such text", "import"):
        with pytest.raises(ValueError, match="occurs"):
            MUTANTS[0]._replace(old=old).applied()
    with pytest.raises(ValueError, match="no Python"):
        MUTANTS[0]._replace(new="(").applied()


def test_only_a_failed_test_or_seed_has_caught_a_mutant() -> None:
    tests, simulation = Tests(), Simulation(5, 1)
    assert not tests.judge(0, PASSED).caught
    assert tests.judge(1, FAILED).by == "tests/unit/sink/test_chain.py::test_x"
    for code, output in ((1, "no test failed"), (2, "interrupted"), (4, "no such file"), (-9, FAILED)):
        outcome = tests.judge(code, output)
        assert (outcome.caught, bool(outcome.error)) == (False, True)
    assert (
        simulation.judge(1, "FAILED seed 3: I1: page_views: 2 rows missing").by == "seed 3: I1: page_views: 2 rows missing"
    )
    assert simulation.judge(1, "Traceback").error
