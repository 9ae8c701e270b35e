"""I6: whatever went wrong, joins go by when events were received; only a block that reached Kinesis late may differ."""

import json
from collections import defaultdict
from typing import Any, NamedTuple

from pyroaring import BitMap

from app.core.audit.reconcile import read_lines
from app.core.formats.block import decode_header, open_frame
from tests.simulation.faults import Fault
from tests.simulation.world import World


class Copy(NamedTuple):
    """The copy of an event that counted."""

    event_id: str
    event_type: str
    received_ms: int
    on_time: bool

    @property
    def order(self) -> tuple[int, str]:
        return self.received_ms, self.event_id


def joins_go_by_receipt(world: World) -> None:
    """Judge every page view all of whose counting copies reached Kinesis within the slack, by the rules J2 and J3."""
    if world.faults.counts[Fault.TRIMMED.value]:
        return  # what retention took comes again by the audit, late
    found = _fates(world)
    for view, copies in sorted(_views(world).items()):
        if not all(copy.on_time for copy in copies):
            world.faults.counts["page views not judged by receipt"] += 1
            continue
        world.faults.counts["page views judged by receipt"] += 1
        for event_id, fate in _settle(world, copies).items():
            if found.get(event_id) != fate:
                world.violation("I6", f"view {view}, event {event_id}: is {found.get(event_id)}, must be {fate}")


def _settle(world: World, copies: list[Copy]) -> dict[str, Any]:
    """Event -> what becomes of it: of a first the second that it takes, of a second its reason or `joined`."""
    window, grace, reorder = world.settings.join
    firsts = sorted((c for c in copies if c.event_type == "page_view"), key=lambda c: c.order)
    seconds = sorted((c for c in copies if c.event_type == "engagement"), key=lambda c: c.order)
    fates: dict[str, Any] = {first.event_id: None for first in firsts}
    if not firsts:
        return {second.event_id: "no_first" for second in seconds}
    opens, closes = firsts[0].received_ms - reorder, firsts[0].received_ms + window + grace
    for second in seconds:
        if second.received_ms > closes:
            fates[second.event_id] = "late"
        elif second.received_ms < opens:
            fates[second.event_id] = "no_first"
        else:
            if (earlier := fates[firsts[0].event_id]) is not None:
                fates[earlier] = "extra"
            fates[firsts[0].event_id], fates[second.event_id] = second.event_id, "joined"
    return fates


def _fates(world: World) -> dict[str, Any]:
    fates: dict[str, Any] = {}
    for row in world.warehouse.rows("page_views"):
        fates[row["event_id"]] = row["engagement_id"]
        if row["engagement_id"]:
            fates[row["engagement_id"]] = "joined"
    for row in world.warehouse.rows("engagements"):
        fates[row["event_id"]] = row["reason"]
    return fates


def _views(world: World) -> dict[str, list[Copy]]:
    """Page view -> the counting copies of its first and second events."""
    counting: dict[str, BitMap] = defaultdict(BitMap)
    for row in world.warehouse.rows("ledger"):
        if row["outcome"] in {"page_views", "joined", "engagements"}:
            counting[row["batch_id"]] |= read_lines(row["line_set"]) or BitMap()
    late = _late_blocks(world)
    views: dict[str, list[Copy]] = defaultdict(list)
    for item in world.registry._items.values():
        raw = world.objects._objects[item.raw_key][0]
        for number, place in enumerate(item.blocks):
            lines = open_frame(raw[place.byte_start : place.byte_start + place.byte_len]).split(b"\n")
            on_time = (item.batch_id, number) not in late
            for n in counting[item.batch_id] & BitMap(range(place.first_line, place.first_line + place.lines)):
                event = json.loads(lines[n - place.first_line])
                copy = Copy(event["event_id"], event["event_type"], event["received_at"], on_time)
                views[event["page_view_id"]].append(copy)
    return views


def _late_blocks(world: World) -> set[tuple[str, int]]:
    """Blocks whose first arrival in Kinesis may be later than the slack, by the clock of any bridge."""
    ahead_ms = max([0, *(ms for slot, ms in world.every_skew.items() if slot.startswith("bridge"))])
    first: dict[tuple[str, int], int] = {}
    for shard in world.stream._shards.values():
        for record in shard.records:
            if record.data in world.unreadable:
                continue
            header = decode_header(record.data)
            lateness = record.arrival_ms - header.received_at_ms + ahead_ms
            key = (header.batch_id, header.block)
            first[key] = min(lateness, first.get(key, lateness))
    slack_ms = world.settings.slack_s * 1000
    known = {(item.batch_id, n) for item in world.registry._items.values() for n in range(len(item.blocks))}
    return {key for key in known if first.get(key, slack_ms + 1) >= slack_ms}
