"""A sample of `make hostile`: answers, counters and memory of a real collector. CPU time is measured there alone."""

import pytest

from tests.rig.hostile import attacks
from tests.rig.hostile.attacks import Outcome
from tests.rig.hostile.clients import SMALL, worst_bodies


def check(outcomes: list[Outcome]) -> None:
    assert outcomes
    assert [outcome for outcome in outcomes if not outcome.holds] == []


async def test_memory_stays_under_the_readmes_bound_while_storage_stands():
    check(await attacks.frozen_storage(rounds=2))


async def test_endless_heads_take_no_memory():
    check(await attacks.large_heads(connections=200))


async def test_clients_are_served_although_all_descriptors_are_wanted():
    check(await attacks.many_connections(descriptors=200))


async def test_bad_http_is_answered_in_our_form_and_leaves_a_short_log():
    check(await attacks.bad_http(each=5))


async def test_pipelined_requests_take_no_memory():
    check(await attacks.pipelined())


@pytest.mark.parametrize("name", worst_bodies())
def test_the_worst_bodies_are_as_small_as_they_say(name):
    head, _, payload = worst_bodies()[name].partition(b"\r\n\r\n")
    assert len(payload) <= SMALL
    assert f"Content-Length: {len(payload)}".encode() in head
