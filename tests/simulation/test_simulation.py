"""Histories of the whole pipeline under faults: none lost, none twice, whatever happens (invariants I1 to I7)."""

import gc
import json
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.simulation.damage import DamagedWorld
from tests.simulation.fault_coverage import Coverage
from tests.simulation.faults import AT_MOMENTS, PER_CALL, ROLES, Fault, Faults
from tests.simulation.history import play

SEEDS = 80
"""`make simulate SEEDS=5000` plays as many others as there is time for."""
AT_ONCE = 10
DAMAGED = 3
"""`make simulate DAMAGE=1 SEEDS=500` plays more."""


@pytest.fixture(autouse=True)
def silent_logs() -> Iterator[None]:
    """What ends a simulated worker is no error of the test."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_nothing_is_lost_and_nothing_doubled(first: int) -> None:
    histories = [play(seed) for seed in range(first, first + AT_ONCE)]
    broken = {history.seed: history.violations[:3] for history in histories if history.violations}
    assert not broken, f"make simulate SEED={min(broken)} tells the history: {broken}"
    assert all(history.events > 100 for history in histories)


def test_damage_behind_a_history_is_mended_beside_the_pipeline() -> None:
    """By repairs that fail and die, side by side; and every invariant holds again (rules R1 to R5)."""
    histories = [play(seed, new_world=DamagedWorld) for seed in range(DAMAGED)]
    broken = {history.seed: history.violations[:3] for history in histories if history.violations}
    assert not broken, f"make simulate DAMAGE=1 SEED={min(broken)} tells the history: {broken}"
    counts: Counter[str] = sum((history.counts for history in histories), Counter())
    assert sum(name.startswith("damage: ") for name in counts) >= 10
    assert counts[f"{Fault.CRASH}: repair"]


def test_every_role_and_every_kind_of_fault_is_in_store_for_a_tenth_of_the_seeds() -> None:
    """That they strike as often is counted by `make simulate`, which fails where they do not."""
    plans = [Faults(seed) for seed in range(400)]
    for fault in [*PER_CALL, *AT_MOMENTS]:
        planned = sum(plan.rates.get(fault, 0) > 0 or fault in plan.moments for plan in plans)
        assert planned >= 40, fault
    assert {*PER_CALL, *AT_MOMENTS, Fault.SKEW, Fault.AHEAD} == set(Fault)


def test_what_struck_too_seldom_is_named() -> None:
    coverage = Coverage()
    everything = {str(fault): 1 for fault in Fault} | {f"{Fault.CRASH}: {role}": 1 for role in ROLES}
    for _ in range(9):
        coverage.add(everything)
    assert coverage.gaps() == []
    for _ in range(100):
        coverage.add(everything | {str(Fault.ZOMBIE): 0, f"{Fault.CRASH}: audit": 0})
    assert coverage.gaps() == [f"{Fault.ZOMBIE} in 8% of the histories", "role audit in 8% of the histories"]
    assert f"{'100.0%':>16}  {'109':>9}  {Fault.SPLIT}" in coverage.table()


def test_what_a_history_held_can_be_freed_when_it_is_over() -> None:
    """Twenty thousand of them go one after the other."""
    play(1)
    spared = gc.get_freeze_count()
    play(2)
    assert gc.get_freeze_count() <= spared, "what was spared may be freed, and nothing of a history is added"


def test_a_seed_is_the_same_history_in_another_process() -> None:
    here = [play(seed) for seed in (7, 8)]
    program = (
        "from tests.simulation.simulate import quiet; quiet()\n"
        "from tests.simulation.history import play\n"
        "import json; print(json.dumps([play(seed).digest for seed in (7, 8)]))"
    )
    there = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "99"},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert json.loads(there.stdout) == [history.digest for history in here]
    assert here[0].digest != here[1].digest
