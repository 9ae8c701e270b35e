"""Going on behind a gap that an operator accepted (rule S5)."""

from collections import Counter
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from app.cli.sink import Undecided, app, bridge
from app.core.formats.flows import FLOWS
from app.core.formats.transaction_record import TransactionRecord
from app.errors import ChainBroken, ChainGap
from app.settings import Settings
from tests.worlds.sink import PLACE, World

SETTINGS = Settings(partitions=4, epoch=PLACE.epoch)


class WorldLog:
    """The world's log with the questions that `LogReader` answers."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def first_offsets(self, _: str, partitions: list[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, self._world.earliest)

    async def end_offsets(self, _: str, partitions: list[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, len(self._world.messages))

    async def message_at(self, _: str, __: int, offset: int) -> bytes | None:
        return self._world.messages[offset] if offset >= self._world.earliest else None


async def accept(world: World) -> TransactionRecord | Undecided:
    return await bridge(world.store, cast(Any, WorldLog(world)), SETTINGS, PLACE.partition, "ops: disk lost")


def trim(world: World, earliest: int) -> None:
    """Retention takes the log's head, and with it everything emitted so far that no transaction has."""
    world.earliest = earliest


async def committed_then_lost(lost: int) -> World:
    """One committed step, then `lost` steps that retention takes before a sink has them."""
    world = World()
    world.emit(page_views=2)
    await world.drain(world.sink())
    kept, lines = {name: Counter(found) for name, found in world.expected.items()}, Counter(world.expected_lines)
    for _ in range(lost):
        world.emit(redirects=1)
    world.expected, world.expected_lines = kept, lines
    trim(world, len(world.messages))
    return world


async def test_the_chain_goes_on_with_the_first_message_that_a_later_one_names() -> None:
    world = await committed_then_lost(3)
    world.zombie(redirects=1)
    world.emit(page_views=1)
    world.zombie(redirects=1)
    world.emit(rejected=1)
    with pytest.raises(ChainGap):
        await world.sink().open()
    record = await accept(world)
    assert isinstance(record, TransactionRecord)
    assert (record.number, record.first_offset, record.last_offset) == (2, 1, 4)
    assert (record.step_number, record.step_offset, record.step_digest) == (4, 3, "")
    assert record.accepted_gap == "ops: disk lost"
    assert sum(out.rows for out in record.outputs) == 0
    await world.drain(world.sink())
    edges = [(r.first_offset, r.last_offset) for r in world.records()]
    assert edges == [(0, 0), (1, 4), (5, 6), (7, 7)]
    world.earliest = 0
    world.check_complete()


async def test_lost_messages_that_did_not_count_lose_nothing() -> None:
    world = World()
    world.emit(page_views=1)
    world.emit(page_views=1)
    await world.drain(world.sink())
    world.zombie()
    trim(world, len(world.messages))
    world.emit(rejected=1)
    record = await accept(world)
    assert isinstance(record, TransactionRecord)
    assert (record.step_number, record.step_offset, record.last_offset) == (2, 1, 2)
    assert record.step_digest == world.records()[0].step_digest
    await world.drain(world.sink())
    world.earliest = 0
    world.check_complete()


async def test_a_first_start_on_a_trimmed_log_can_be_accepted_too() -> None:
    world = World()
    world.emit(page_views=1)
    world.expected, world.expected_lines = {flow.name: Counter() for flow in FLOWS}, Counter()
    trim(world, 1)
    world.emit(page_views=1)
    world.emit(page_views=1)
    record = await accept(world)
    assert isinstance(record, TransactionRecord)
    assert (record.number, record.first_offset, record.last_offset, record.step_number) == (1, 0, 0, 1)
    await world.drain(world.sink())
    world.check_complete()


async def test_it_waits_until_a_message_names_another() -> None:
    world = await committed_then_lost(2)
    assert await accept(world) == Undecided(0)
    world.emit(page_views=1)
    assert await accept(world) == Undecided(1)
    assert len(world.records()) == 1
    world.emit(page_views=1)
    assert isinstance(await accept(world), TransactionRecord)


async def test_where_there_is_no_gap_nothing_is_accepted() -> None:
    world = World()
    world.emit(page_views=1)
    await world.drain(world.sink())
    world.emit(page_views=1)
    with pytest.raises(ChainBroken, match="no gap"):
        await accept(world)
    assert len(world.records()) == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["--partition", "0"], ["--partition", "4", "--reason", "x"], ["--partition", "0", "--reason", " "]],
)
def test_usage(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTREAM_PARTITIONS", "4")
    assert CliRunner().invoke(app, ["accept-gap", *arguments]).exit_code == 2


def test_a_service_that_is_not_there_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "INSTREAM_KAFKA": "127.0.0.1:1", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert CliRunner().invoke(app, ["accept-gap", "--partition", "0", "--reason", "x"]).exit_code == 1
