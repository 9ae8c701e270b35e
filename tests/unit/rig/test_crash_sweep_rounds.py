"""The sweep meets every point once, and never two of one role at a time."""

from collections import Counter

import pytest

from app.crash.catalogue import CALLS, POINTS, Point, read_point
from tests.rig.crash_sweep.histories import _HISTORIES, Event, History, history_of
from tests.rig.crash_sweep.outcome import Outcome
from tests.rig.crash_sweep.rounds import OF_A_ROLE, busy_roles, lives_of, needs, rounds_of


def alone(point: Point) -> bool:
    return needs(Event.FIRST_START, [point]) or needs(Event.STALE_STORE, [point])


@pytest.mark.parametrize("together", [1, 3, 6])
def test_every_point_is_in_one_round(together: int) -> None:
    rounds = [points for life in lives_of(POINTS) for points in rounds_of(life, together)]
    assert sorted(point for points in rounds for point in points) == sorted(POINTS)
    assert all(rounds)


def test_a_role_is_needed_for_one_point_or_for_few_that_come_with_traffic() -> None:
    for life in lives_of(POINTS):
        for points in rounds_of(life, 6):
            if any(alone(point) for point in points):
                continue
            busy = Counter(role for point in points for role in busy_roles(point))
            for role, count in busy.items():
                plain = [point for point in points if point.role == role and history_of(point) == History()]
                assert count == 1 or count == len(plain) <= OF_A_ROLE, points


def test_few_roles_die_together_where_that_is_asked() -> None:
    for points in rounds_of(lives_of(POINTS)[0], 2):
        assert len({point.role for point in points}) <= 2


def test_a_first_start_comes_first_and_a_stale_store_last() -> None:
    rounds = rounds_of(lives_of(POINTS)[0], 6)
    assert [needs(Event.FIRST_START, points) for points in rounds] == [True, *[False] * (len(rounds) - 1)]
    stale = [needs(Event.STALE_STORE, points) for points in rounds]
    assert stale == sorted(stale)
    assert sum(stale) == 2


def test_what_a_short_memory_needs_is_a_life_of_its_own() -> None:
    usual, forgetful = lives_of(POINTS)
    assert {point.call for point in forgetful} == {"rocksdb.create", "rocksdb.drop"}
    assert not needs(Event.SHORT_MEMORY, usual)
    assert lives_of(forgetful) == [forgetful]


def test_histories_are_of_calls_that_there_are() -> None:
    calls = {f"{role}.{call}" for role, made in CALLS.items() for call in made}
    assert _HISTORIES.keys() <= calls
    for point in POINTS:
        for name in history_of(point).companions:
            assert read_point(name) != point


@pytest.mark.parametrize(
    ("outcome", "good"),
    [
        (Outcome("p", 2, 2, 5.0, 0), True),
        (Outcome("p", 2, 1, None, 0), False),
        (Outcome("p", 1, 1, None, 0), False),
        (Outcome("p", 1, 1, 5.0, 1), False),
        (Outcome("p", 1, 2, 5.0, 0), False),
    ],
)
def test_an_outcome_is_good_only_when_everything_is(outcome: Outcome, good: bool) -> None:
    assert outcome.is_good is good
