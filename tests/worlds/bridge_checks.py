"""The invariants of a bridge world after a history: nothing is lost, no time passes an unread record."""

from app.core.etl.stream_time import ShardWatermarks, moved_time
from app.core.formats.block import (
    End,
    WatermarkMessage,
    decode_control,
    decode_header,
    is_control,
)
from tests.worlds.bridge import START_MS, World, controls


def stream_times(log: list[bytes]) -> list[int]:
    """The highest stream time that rule T4 allows at each message: a child starts at its latest parent's watermark."""
    now, times = 0, []
    watermarks: dict[str, int] = {}
    parents: dict[str, list[str]] = {}
    ended: set[str] = set()
    for value in log:
        if is_control(value):
            control = decode_control(value)
            if isinstance(control, End):
                ended.add(control.shard)
            else:
                parents |= control.open_shards
                for shard, mark in control.watermarks.items():
                    watermarks[shard] = max(watermarks.get(shard, 0), mark)
            held = [
                watermarks.get(shard, max((watermarks.get(parent, 0) for parent in of), default=0))
                for shard, of in parents.items()
                if shard not in ended
            ]
            if held:
                now = max(now, min(held))
        times.append(now)
    return times


def end_time(log: list[bytes]) -> int:
    """Stream time at the log's end, by the ETL's own code."""
    shards, now = ShardWatermarks(), 0
    for control in controls(log):
        shards.observe(control)
        now = moved_time(now, shards, append_ms=2 * START_MS)
    return now


def check(world: World) -> None:
    closed = {s.shard_id for s in world.stream._shards.values() if s.ending_sequence is not None} | world.forgotten
    for partition, log in enumerate(world.blocks):
        mine = {value for value, at in world.origin.items() if decode_header(value).partition == partition}
        kept = {value for value in mine if world.origin[value][0] not in world.forgotten}
        assert kept <= set(log), "a record was lost"
        ends: dict[str, int] = {}
        last: dict[str, int] = {}
        seen: set[bytes] = set()
        times = stream_times(log)
        for place, value in enumerate(log):
            if is_control(value):
                control = decode_control(value)
                if isinstance(control, End):
                    ends.setdefault(control.shard, place)
                else:
                    assert set(control.finished) <= set(ends), "a tick repeats an END that is not there"
                continue
            if value in seen:
                continue
            seen.add(value)
            shard, sequence, arrival_ms = world.origin[value]
            assert times[place] <= arrival_ms, "stream time passed a record that was not in the log"
            assert last.get(shard, -1) < sequence, "a shard's records are out of order"
            last[shard] = sequence
            assert shard not in ends, "a record behind its shard's END"
            for parent in world.parents[shard]:
                assert parent in ends or parent in world.forgotten, "a child was pumped before its parent's END"
        # a shard that came and was forgotten between two lists held no time back, and no worker can end it
        named = {
            shard for c in controls(log) if isinstance(c, WatermarkMessage) for shard in [*c.open_shards, *c.watermarks]
        }
        unknown = world.forgotten - named
        assert set(ends) | unknown == closed | unknown, "an END is missing, or came for an open shard"
        assert end_time(log) >= world.clock.ms - 5_000, "stream time stands although every pump runs"
