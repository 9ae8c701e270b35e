"""Checkpoints never go back, whatever order and number they arrive in (rule T1)."""

import itertools

import pytest

from app.core.formats.checkpoint import Barrier, Checkpoint, decode, encode, further, home_of
from app.errors import FormatInvalid

HISTORY = [
    Checkpoint("a"),
    Checkpoint("a", "9", 100),
    Checkpoint("a", "10", 50),
    Checkpoint("a", "49590338271490256608559692538361571095921575989136588898", 200),
    Checkpoint("a", "10", 50, finished=True),
]


@pytest.mark.parametrize("order", list(itertools.permutations(HISTORY))[::7])
def test_any_order_and_repetition_ends_at_the_furthest(order: tuple[Checkpoint, ...]) -> None:
    known = None
    for checkpoint in (*order, *order[:2]):
        known = further(known, checkpoint)
    assert known == Checkpoint("a", "49590338271490256608559692538361571095921575989136588898", 200, finished=True)


@pytest.mark.parametrize("message", [*HISTORY, Barrier("t1")])
def test_messages_survive_the_topic(message: Checkpoint | Barrier) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("junk", [b"", b"x", b"\x92\xa3end\xa1a"])
def test_other_bytes_are_refused(junk: bytes) -> None:
    with pytest.raises(FormatInvalid):
        decode(junk)


def test_homes_are_the_same_in_every_process_and_use_every_partition() -> None:
    shards = [f"shardId-{n:012d}" for n in range(64)]
    assert home_of(shards[0], 8) == 0x5AF3C1F0 % 8
    assert {home_of(shard, 8) for shard in shards} == set(range(8))
