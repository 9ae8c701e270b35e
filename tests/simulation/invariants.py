"""What must hold after a history, checked exactly: I1 to I7."""

import asyncio
import hashlib
import json
from collections import Counter
from typing import Any

from app.core.audit.reconcile import LedgerLines, coverage
from app.core.formats.dead_letter import decode_letter
from app.core.formats.flows import FLOWS, OUTPUTS
from app.core.formats.object_keys import chain_prefix
from app.core.formats.source import SourceMessage
from app.core.formats.step_message import StepMessage
from app.core.formats.transaction_record import TransactionRecord
from app.core.sink.chain import ChainId, decode_record, numbers_behind
from tests.builders.visitors import ADDRESSES, visitor_of
from tests.oracle import Bounds, Oracle
from tests.simulation.joins import joins_go_by_receipt
from tests.simulation.world import World

OURS = frozenset({"txn_id", "loaded_at"})
Rows = Counter[tuple[tuple[str, Any], ...]]


async def check(world: World) -> None:
    """Every invariant; what does not hold is among the world's violations."""
    oracles = [_oracle(world, p) for p in range(world.settings.partitions)]
    _rows_are_the_oracles(world, oracles)
    _dead_letters_are_the_oracles(world, oracles)
    _ledger_covers_each_batch_once(world)
    _acknowledged_is_kept(world)
    _transactions_are_whole(world)
    _each_event_is_there_once(world)
    if not world.violations:
        joins_go_by_receipt(world)
    if not world.violations:
        await _replaying_changes_nothing(world)


def _oracle(world: World, partition: int) -> Oracle:
    topic = world.topics.blocks.name
    place = (topic, partition)
    window, grace, reorder = world.settings.join
    bounds = Bounds(window, grace, reorder, world.settings.dedup_window_ms)
    log = [
        SourceMessage(offset, append_ms, value)
        for offset, (append_ms, value) in enumerate(
            zip(world.logs.append_ms.get(place, []), world.logs.messages.get(place, []), strict=True)
        )
    ]
    oracle, at = Oracle(bounds, visitor_of, ADDRESSES.__getitem__), 0
    for step in world.counted_steps(partition):
        if declares_gap(step):
            oracle.run(log[at : step.source_first]).listed.clear()
            at = step.source_last + 1
    return oracle.run(log[at:])


def declares_gap(step: StepMessage) -> bool:
    """Whether retention took the source of this step before anybody read it."""
    return any(alarm.startswith("gap declared") for alarm in step.alarms)


def _counted(rows: Any) -> Rows:
    return Counter(tuple(sorted((k, v) for k, v in row.items() if k not in OURS and v is not None)) for row in rows)


def _rows_are_the_oracles(world: World, oracles: list[Oracle]) -> None:
    """I1: every flow's rows are those that the log of `blocks` makes."""
    for flow in FLOWS:
        found = _counted(world.warehouse.rows(flow.name))
        wanted: Rows = Counter()
        for oracle in oracles:
            wanted += _counted(world.as_decided(flow.name, row) for row in oracle.rows.get(flow.name, []))
        for kind, difference in (("missing", wanted - found), ("extra", found - wanted)):
            if difference:
                example = dict(next(iter(difference)))
                world.violation("I1", f"{flow.name}: {sum(difference.values())} rows {kind}, e.g. {example}")


def _dead_letters_are_the_oracles(world: World, oracles: list[Oracle]) -> None:
    """What nobody could read is reported, and lies on its topic at least once (rule E8)."""
    wanted = Counter(letter for oracle in oracles for letter in oracle.dead_letters)
    found = Counter((row["batch_id"], row["block"], row["attempt"]) for row in world.warehouse.rows("dead_letters"))
    if found != wanted:
        world.violation("E8", f"dead letters {found} are reported, must be {wanted}")
    topic = world.topics.dead_letters.name
    heads = [
        decode_letter(v).head for p in range(world.settings.partitions) for v in world.logs.messages.get((topic, p), [])
    ]
    if missing := wanted.keys() - {(head.batch_id, head.block, head.attempt) for head in heads}:
        world.violation("E8", f"dead letters that are not on their topic: {missing}")


def _ledger_covers_each_batch_once(world: World) -> None:
    """I2."""
    entries: dict[str, list[LedgerLines]] = {}
    for row in world.warehouse.rows("ledger"):
        entries.setdefault(row["batch_id"], []).append(LedgerLines(row["outcome"], row["lines"], row["line_set"]))
    for item in world.registry._items.values():
        found = coverage(item.line_count, entries.pop(item.batch_id, []))
        if found.excess or found.missing:
            world.violation("I2", f"batch {item.batch_id}: {found}")
    for batch_id in entries:
        world.violation("I2", f"ledger has batch {batch_id}, the registry does not")


def _acknowledged_is_kept(world: World) -> None:
    """I3."""
    for sent in world.traffic.acknowledged:
        item = world.registry._items.get(sent.batch_id)
        if item is None:
            world.violation("I3", f"acknowledged batch {sent.batch_id} is not in the registry")
            continue
        raw = world.objects._objects.get(item.raw_key)
        if raw is None or hashlib.sha256(raw[0]).hexdigest() != item.sha256:
            world.violation("I3", f"acknowledged batch {sent.batch_id}: its raw file is missing or another one")


def _transactions_are_whole(world: World) -> None:
    """I4: chains without a gap; manifests name objects that exist; a transaction shows all its rows or none."""
    loaded = {row.txn_id for row in world.warehouse.log if row.status == "loaded"}
    for txn_id, times in Counter(row.txn_id for row in world.warehouse.log).items():
        if times > 1:
            world.violation("I4", f"{txn_id} is {times} times in delivery_log")
    records = records_of(world)
    _manifests_name_what_exists(world)
    for flow in OUTPUTS:
        wanted = {txn_id: record.output(flow.name).rows for txn_id, record in records.items()}
        found = Counter(row["txn_id"] for row in world.warehouse.rows(flow.name))
        for txn_id in sorted({*found, *loaded}):
            if found[txn_id] != (wanted.get(txn_id) if txn_id in loaded else 0):
                world.violation(
                    "I4", f"{flow.name}: {txn_id} has {found[txn_id]} rows, its record says {wanted.get(txn_id)}"
                )


def records_of(world: World) -> dict[str, TransactionRecord]:
    """Every committed transaction; raises ChainBroken where a number is missing."""
    objects = world.objects._objects
    records = {}
    for partition in range(world.settings.partitions):
        place = ChainId(1, partition)
        keys = sorted(key for key in objects if key.startswith(chain_prefix(*place)))
        for number, key in zip(numbers_behind(place, 0, keys), keys, strict=True):
            record = decode_record(objects[key][0], place, number)
            records[record.txn_id] = record
    return records


def _manifests_name_what_exists(world: World) -> None:
    objects = world.objects._objects
    for key in sorted(objects):
        if key.startswith("manifests/") and key.endswith(".manifest"):
            for entry in json.loads(objects[key][0])["entries"]:
                name = entry["url"].removeprefix(f"s3://{world.objects.bucket}/")
                if name not in objects or len(objects[name][0]) != entry["meta"]["content_length"]:
                    world.violation("I4", f"{key} names {name}, which is missing or of another length")


def _each_event_is_there_once(world: World) -> None:
    """What clients were told is kept: each event acknowledged is one row, or part of one page view.

    Lines that are rejected as malformed are not events, so copies of them are rows of their own.
    """
    found: Counter[str] = Counter()
    refused = set()
    for flow in FLOWS:
        for row in world.warehouse.rows(flow.name):
            if row.get("kind") == "malformed" and row.get("event_id") in world.traffic.refusable:
                refused.add(row["event_id"])
            elif row.get("event_id"):
                found[row["event_id"]] += 1
            if row.get("engagement_id"):
                found[row["engagement_id"]] += 1
    wanted = {
        json.loads(line)["event_id"]
        for sent in world.traffic.acknowledged for line in sent.lines if line.startswith(b'{"event_id": "')
    }  # fmt: skip
    for event_id in sorted(wanted | set(found)):
        times = found[event_id] or int(event_id in refused)
        if times != 1 or event_id not in world.traffic.event_ids:
            world.violation("I1", f"event {event_id} is there {times} times")


async def _replaying_changes_nothing(world: World) -> None:
    """I5."""
    before = {flow.name: _counted(world.warehouse.rows(flow.name)) for flow in OUTPUTS if flow.name != "replays"}
    replays = len(world.warehouse.rows("replays"))
    blocks = 0
    for item in list(world.registry._items.values()):
        world.resend(item, item.attempts + 5)
        blocks += len(item.blocks)
    for _ in range(300):
        if len(world.warehouse.rows("replays")) >= replays + blocks:
            break
        await asyncio.sleep(1)
    else:
        world.violation("I5", f"{len(world.warehouse.rows('replays')) - replays} of {blocks} replays are reported")
    for name, rows in before.items():
        if _counted(world.warehouse.rows(name)) != rows:
            world.violation("I5", f"replaying every batch changed {name}")
