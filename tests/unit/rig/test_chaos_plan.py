"""The plan of a chaos run comes from its seed alone; damage to a state does what it says."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from app.errors import LocalStackError
from tests.rig.chaos import state
from tests.rig.chaos.items import judge_named
from tests.rig.chaos.plan import EXTRA, ROLES, SLOW, STOPPABLE, STORM, Kind, kinds_of, plan
from tests.rig.chaos.quarantine import judge_quarantine
from tests.rig.chaos.report import Journal

SEEDS = range(1, 21)


def test_a_seed_gives_one_plan_and_another_seed_another():
    assert plan(7, 600) == plan(7, 600)
    assert plan(7, 600) != plan(8, 600)


@pytest.mark.parametrize("seed", SEEDS)
def test_ten_minutes_have_every_kind_a_hundred_terms_and_thirty_kills(seed):
    faults = plan(seed, 600)
    counts = Counter(fault.kind for fault in faults)
    assert set(counts) == set(Kind)
    assert counts[Kind.TERM] >= 100
    assert counts[Kind.KILL] >= 30
    assert counts[Kind.ZOMBIE] >= 10
    assert counts[Kind.BROKER] >= 2
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    assert all(0 <= fault.at_s < 600 for fault in faults)


@pytest.mark.parametrize("seed", SEEDS)
def test_signals_come_in_bursts_and_after_pauses_and_meet_every_role(seed):
    signals = [fault for fault in plan(seed, 600) if fault.kind in {Kind.TERM, Kind.KILL}]
    pauses = [after.at_s - before.at_s for before, after in pairwise(signals)]
    assert min(pauses) < 0.5
    assert 10 < max(pauses) <= 20.1
    assert {fault.target for fault in signals} == set(ROLES)


@pytest.mark.parametrize("seconds", [20, 45, 60])
def test_a_short_run_has_every_kind_but_those_for_which_delivery_stands_still(seconds):
    assert {fault.kind for fault in plan(3, seconds)} == set(kinds_of(seconds)) == set(Kind) - SLOW


def test_targets_fit_their_kinds_and_a_stopped_worker_outsleeps_its_session():
    for fault in (fault for seed in SEEDS for fault in plan(seed, 120)):
        if fault.kind is Kind.ZOMBIE:
            assert fault.target in STOPPABLE
            assert fault.lasts_s > 6
        elif fault.kind is Kind.REBALANCE:
            assert fault.target in STORM
        elif fault.kind in {Kind.STATE_DELETED, Kind.STATE_TRUNCATED, Kind.STATE_ROLLED_BACK}:
            assert fault.target.startswith("etl")
    assert set(EXTRA) <= set(ROLES)


# --- state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "etl"
    (made / "tables").mkdir(parents=True)
    (made / "tables" / "LOCK").write_bytes(b"locked")
    (made / "tables" / "000001.sst").write_bytes(b"x" * 100)
    (made / "CURRENT").write_bytes(b"y" * 10)
    (made / "OPTIONS-000007").write_bytes(b"z" * 10)
    return made


def test_a_worker_that_has_stored_nothing_yet_has_no_state(folder: Path, tmp_path: Path):
    (tmp_path / "new" / "tables").mkdir(parents=True)
    (tmp_path / "new" / "tables" / "LOCK").touch()
    assert [state.is_there(path) for path in (folder, tmp_path / "new", tmp_path / "none")] == [True, False, False]


def test_a_state_is_deleted(folder: Path):
    assert state.delete(folder) == "4 files deleted"
    assert not folder.exists()
    with pytest.raises(OSError, match="etl"):
        state.delete(folder)


def test_one_file_of_a_state_is_cut_in_half_the_same_for_the_same_chance(folder: Path):
    said = state.truncate(folder, chance=1)
    sizes = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert sizes in (
        {"LOCK": 6, "OPTIONS-000007": 10, "000001.sst": 50, "CURRENT": 10},
        {"LOCK": 6, "OPTIONS-000007": 10, "000001.sst": 100, "CURRENT": 5},
    )
    assert "bytes" in said
    (folder / "CURRENT").write_bytes(b"y" * 10_000)
    (folder / "tables" / "000001.sst").write_bytes(b"x" * 10_000)
    names = {state.truncate(folder, chance=chance).split(" ", 1)[0] for chance in range(8)}
    assert names == {"tables/000001.sst", "CURRENT"}


def test_there_must_be_something_to_truncate(tmp_path: Path):
    with pytest.raises(LocalStackError):
        state.truncate(tmp_path, chance=1)


def test_a_state_is_rolled_back_to_its_copy(folder: Path):
    aside = folder.with_name("etl.copy")
    state.copy(folder, aside)
    (folder / "CURRENT").write_bytes(b"later")
    state.roll_back(folder, aside)
    assert (folder / "CURRENT").read_bytes() == b"y" * 10
    assert (aside / "CURRENT").read_bytes() == b"later"
    state.copy(folder, aside)
    assert (aside / "CURRENT").read_bytes() == b"y" * 10


# --- report


def test_a_transaction_set_aside_without_an_unreadable_file_is_a_violation():
    unreadable = ["s3://b/data/redirects/dt=2026-01-01/hour=00/1-0-3-ab.deflate.avro"]
    assert judge_quarantine({"1-0-3-ab"}, unreadable) == []
    assert judge_quarantine(set(), unreadable) == []
    (found,) = judge_quarantine({"1-0-3-ab", "1-2-7-cd"}, unreadable)
    assert (found.rule, "1-2-7-cd" in found.text) == ("D2", True)


def test_a_command_that_does_not_name_an_item_that_is_no_batch_is_a_violation():
    reasons = ["registry item x-1 cannot be read", "registry item x-2 cannot be read"]
    told = {"audit": (reasons, 2), "wait": (reasons[:1], 2), "replay": (reasons, 2)}
    assert judge_named(["x-1", "x-2"], told) == []
    assert judge_named([], {"audit": ([], 0)}) == []
    for wrong in ((reasons[:1], 1), ([], 2), ([reasons[0], "registry item y cannot be read"], 2), ([*reasons, "y"], 3)):
        (found,) = judge_named(["x-1", "x-2"], told | {"audit": wrong})
        assert (found.rule, "audit" in found.text) == ("A1", True)


def test_a_journal_counts_what_struck_and_not_what_met_nobody():
    journal = Journal()
    journal.begin()
    journal.note(Kind.KILL, "etl", "pid 1")
    journal.note(Kind.KILL, "sink", "pid 2")
    journal.miss(Kind.KILL, "audit", "nobody runs")
    assert journal.counts() == {Kind.KILL: 2}
    assert len(journal.missed) == 1
