"""Generations of column families: nothing is dropped before its youngest entry has expired (rule E7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tables.store.generations import Generations, family_name, generation_of


@given(window_ms=st.integers(1, 10**9), stored_ms=st.integers(0, 10**13), age_ms=st.integers(0, 10**10))
def test_a_generation_goes_only_when_every_entry_that_it_may_hold_has_expired(
    window_ms: int, stored_ms: int, age_ms: int
) -> None:
    rules = Generations(window_ms)
    stream_time_ms = stored_ms + age_ms
    if rules.expired([rules.of(stored_ms)], stream_time_ms):
        assert stored_ms + window_ms < stream_time_ms


@given(window_ms=st.integers(2, 10**9), stored_ms=st.integers(0, 10**13))
def test_it_is_gone_after_one_and_a_half_windows(window_ms: int, stored_ms: int) -> None:
    rules = Generations(window_ms)
    late_ms = stored_ms + window_ms + rules.span_ms + 1
    assert rules.expired([rules.of(stored_ms)], late_ms) == [rules.of(stored_ms)]


def test_expired_generations_come_oldest_first() -> None:
    assert Generations(100).expired([9, 2, 1, 30], 700) == [1, 2, 9]


@pytest.mark.parametrize("generation", [0, 5, 33_000_000])
def test_family_names_read_back(generation: int) -> None:
    assert generation_of(family_name(generation)) == generation


@pytest.mark.parametrize("family", ["default", "window"])
def test_other_families_are_no_generation(family: str) -> None:
    assert generation_of(family) is None
