"""`instream repair-log`: what it finds, writes and refuses (rule E2)."""

import random
from collections.abc import Callable

import msgspec
import pytest

from agents.etl.log_repair import Findings, Foreign, LogRepairPorts
from app.cli.repair_log import exit_code_of, lines_of, read_dimension, repair
from app.cli.show import Exit
from app.core.formats.object_keys import repair_key
from app.core.formats.step_history import Accepted
from app.core.formats.step_message import decode_step, digest_of, encode_step
from app.core.repair.damage import damaged_between, refuse_shared_out
from app.core.repair.replacements import Replacements
from app.core.sink.chain import ChainEnd
from app.errors import NewerFormat, RepairRefused
from app.settings import Settings
from app.shell.repairs import read_replacements
from app.testing.memory import MemoryLogs, MemoryObjectStore
from tests.builders.source_log import block, end, etl_rules, event, log_of, second, tick
from tests.builders.visitors import ENRICHER
from tests.worlds.damaged_log import BLOCKS, LOG, ROWS, DamagedLog

SETTINGS = Settings(partitions=4, epoch=1, state_cache_bytes=8 << 20)


def world() -> DamagedLog:
    """Steps that only move time, a dozen blocks with page views and engagements, and the time that closes them."""
    values = [tick(s0=0.0)] * 8
    for n in range(12):
        values += [block(event(f"e{n}", view=f"v{n}", at_s=10 * n), second(f"s{n}", view=f"v{n}", at_s=10 * n), batch=n + 1)]
        values += [tick(s0=10 * n)]
    return DamagedLog(log_of([*values, tick(s0=500.0), end("s0")]), etl_rules(), random.Random(7))


async def run(made: DamagedLog, objects: MemoryObjectStore, *, apply: bool = False) -> Findings:
    return await repair(objects, LogRepairPorts(made.logs, ROWS, BLOCKS, made.rules, ENRICHER), SETTINGS, 0, apply=apply)


async def test_a_dry_run_writes_nothing_and_says_what_it_would_write() -> None:
    made, objects = world(), MemoryObjectStore()
    made.damage([made.steps[2]])
    found = await run(made, objects)
    assert exit_code_of([found], apply=False) is Exit.INCOMPLETE
    assert objects._sorted == []
    said = lines_of([found], apply=False)
    assert f"rows[0] {made.steps[2]}: step 3 is damaged" in said[0]
    assert said[-1] == "1 damaged steps can be replaced: --apply"


async def test_apply_stores_the_step_and_a_second_run_finds_nothing() -> None:
    made, objects = world(), MemoryObjectStore()
    lost = [made.steps[1], made.steps[4]]
    made.damage(lost)
    found = await run(made, objects, apply=True)
    assert exit_code_of([found], apply=True) is Exit.OK
    assert objects._sorted == [repair_key(1, 0, offset) for offset in lost]
    assert [objects._objects[key][0] for key in objects._sorted] == [made.lost[offset] for offset in lost]
    again = await run(made, objects, apply=True)
    assert (again.repairs, again.replaced) == ([], 2)
    assert lines_of([again], apply=True)[-1] == "no step is damaged; 2 were replaced before"
    assert made.state((await read_replacements(objects, 1, {0}))[0])


async def test_two_runs_beside_each_other_agree_though_enrichment_differs() -> None:
    made, objects = world(), MemoryObjectStore()
    at = made.steps[3]
    made.damage([at])
    step = decode_step(made.lost[at])
    other = encode_step(msgspec.structs.replace(step, rows={"page_views": b"other titles"}))

    async def first_run(call: str, subject: str) -> None:
        if call == "put_if_absent":  # the other run was quicker
            objects._store(subject, other)

    objects.before = first_run
    assert exit_code_of([await run(made, objects, apply=True)], apply=True) is Exit.OK
    assert objects._objects[repair_key(1, 0, at)][0] == other


async def test_an_object_of_another_step_at_the_key_is_refused() -> None:
    made, objects = world(), MemoryObjectStore()
    at = made.steps[3]
    made.damage([at])
    other = encode_step(msgspec.structs.replace(decode_step(made.lost[at]), stream_time_ms=5))

    async def first(call: str, subject: str) -> None:
        if call == "put_if_absent":
            objects._store(subject, other)

    objects.before = first
    with pytest.raises(RepairRefused, match="stream_time_ms"):
        await run(made, objects, apply=True)


async def test_what_the_source_no_longer_has_is_refused_with_what_remains() -> None:
    made, objects = world(), MemoryObjectStore()
    made.damage([made.steps[3]])
    made.logs.trim(BLOCKS, 0, decode_step(made.lost[made.steps[3]]).source_last + 1)
    found = await run(made, objects, apply=True)
    assert exit_code_of([found], apply=True) is Exit.FAILURE
    assert "gone by retention" in str(found.refused)
    assert "instream sink accept-gap" in str(found.refused)
    assert objects._sorted == []


async def test_messages_that_are_gone_are_no_damage_that_can_be_repaired() -> None:
    made, objects = world(), MemoryObjectStore()
    first, after = made.steps[2], made.steps[3]
    step = decode_step(made.messages[after])
    made.damage([after], encode_step(msgspec.structs.replace(step, number=step.number + 40, predecessor=after - 1)))
    found = await run(made, objects)
    assert first < after
    assert "are missing, and the log has no messages at their places" in str(found.refused)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda step: msgspec.structs.replace(step, ledger=step.ledger[1:]), "ledger"),
        (lambda step: msgspec.structs.replace(step, changes=step.changes[1:]), "changes of "),
        (lambda step: msgspec.structs.replace(step, meta=step.meta + b"\xc0"), "meta"),
    ],
)
async def test_a_step_behind_the_damage_that_is_not_decided_again_alike_refuses_the_repair(
    spoil: Callable[[object], object], named: str
) -> None:
    made, objects = world(), MemoryObjectStore()
    at = next(n for n, offset in enumerate(made.steps) if n > 1 and decode_step(made.messages[offset]).ledger)
    spoilt = encode_step(spoil(decode_step(made.messages[made.steps[at]])))  # type: ignore[arg-type]
    made.damage([made.steps[at]], spoilt)
    made.damage([made.steps[at - 1]])
    found = await run(made, objects, apply=True)
    assert named in str(found.refused)
    assert objects._sorted == []


async def test_foreign_messages_are_named_and_nothing_is_to_be_done() -> None:
    made, objects = world(), MemoryObjectStore()
    at = made.logs.append(ROWS, 0, b"nonsense")
    found = await run(made, objects, apply=True)
    assert exit_code_of([found], apply=True) is Exit.OK
    assert found.foreign[-1] == Foreign(at, "not a step message: starts 6e6f6e73")
    assert lines_of([found], apply=True)[-1] == "no step is damaged"


async def test_a_newer_step_stops_the_search() -> None:
    made = world()
    made.logs.append(ROWS, 0, b"STP9\x90")
    with pytest.raises(NewerFormat):
        await run(made, MemoryObjectStore())


async def test_a_trimmed_log_is_followed_from_its_first_named_step() -> None:
    made, objects = world(), MemoryObjectStore()
    made.logs.trim(ROWS, 0, made.steps[1])
    made.damage([made.steps[5]])
    found = await run(made, objects)
    assert found.refused is None
    assert {each.offset: each.message for each in found.repairs} == made.lost


def test_an_offset_that_a_step_names_is_damaged_before_any_other() -> None:
    made = world()
    step = msgspec.structs.replace(decode_step(made.messages[made.steps[-1]]), number=8, predecessor=20)
    assert damaged_between(Accepted(5, 10), step, [9, 12, 14, 21], named={12}) == [12, 20]
    assert damaged_between(Accepted(5, 10), step, [9, 12, 14, 21]) == [14, 20]
    assert damaged_between(Accepted(4, 10), step, [9, 12, 14, 21], named={12}) == [12, 14, 20]
    with pytest.raises(RepairRefused, match="no messages at their places"):
        damaged_between(Accepted(3, 10), step, [9, 12, 14, 21])


def test_a_chain_that_ends_inside_a_run_of_damaged_steps_must_have_the_replacements_lines() -> None:
    made = world()
    first, second_ = made.steps[2], made.steps[3]
    replaced = Replacements({offset: made.messages[offset] for offset in (first, second_)}, LOG)
    for at, digest in ((first, digest_of(made.messages[first]).hex()), (second_, "other"), (made.steps[0], "other")):
        refuse_shared_out(ChainEnd(number=1, accepted=Accepted(1, at), digest=digest), replaced)
    with pytest.raises(RepairRefused, match="lost or doubled"):
        refuse_shared_out(ChainEnd(number=1, accepted=Accepted(1, first), digest="other"), replaced)


async def test_a_dimension_is_read_as_the_etl_reads_it() -> None:
    class Keyed(MemoryLogs):
        async def scan(self, topic, partition, first, end):  # type: ignore[no-untyped-def]
            keys = [b"a", b"b", b"a", None, b"b"]
            async for message in super().scan(topic, partition, first, end):
                yield msgspec.structs.replace(message, key=keys[message.offset])

    logs = Keyed()
    for value in (b'{"title":"old"}', b'{"title":"gone"}', b'{"title":"new","author_id":7}', b"{}", b""):
        logs.append("articles", 0, value)
    assert await read_dimension(logs, "articles") == {"a": {"title": "new", "author_id": "7"}}
