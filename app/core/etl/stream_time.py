"""A partition's stream time, from the watermarks of Kinesis shards (rules T4, T5).

Stream time is the lowest watermark of all known shards that are not finished. It never goes back, and it never passes the
broker's append time of the message that moves it. A slow or dead reader holds it: joins wait, and nothing is lost.
"""

import msgspec

from app.core.formats.block import Control, End
from app.core.join.join_order import UNKNOWN


class ShardWatermarks(msgspec.Struct, array_like=True):
    """The shards as a partition knows them; part of `app.core.etl.meta.EtlMeta`."""

    watermarks: dict[str, int] = {}
    """Shard -> its highest watermark, ms. The last one of a finished shard stays, because its children start from it."""
    unfinished: dict[str, list[str]] = {}
    """Every known shard without an END -> its parents."""
    finished: list[str] = []
    """Shards that ended, in the order in which their ENDs came; they never reopen (rule T5)."""

    def copy(self) -> "ShardWatermarks":
        """An independent copy."""
        return ShardWatermarks(dict(self.watermarks), dict(self.unfinished), list(self.finished))

    def observe(self, control: Control) -> None:
        """Take a watermark message or an END. Later messages about a finished shard change nothing (rule T5)."""
        ended = [control.shard] if isinstance(control, End) else control.finished
        for shard in ended:
            self.unfinished.pop(shard, None)
        self.finished += [shard for shard in ended if shard not in self.finished]
        if not isinstance(control, End):
            done = set(self.finished)
            for shard, parents in control.open_shards.items():
                if shard not in done:
                    self.unfinished[shard] = parents
            for shard, mark in control.watermarks.items():
                if shard not in done:
                    self.unfinished.setdefault(shard, [])
                    self.watermarks[shard] = max(mark, self.watermarks.get(shard, UNKNOWN))

    def behind_a_gap(self) -> "ShardWatermarks":
        """The shards behind a gap. An END may have been in the gap, so no shard is known to be open.

        Time stands until the next watermark message lists the shards anew. The list in it may be older than the gap. If it
        lacks a child, time may pass the child's first records, and their joins become late (late is not missing). If it
        still has a shard that ended, a later watermark message names that shard as finished.
        """
        return ShardWatermarks(dict(self.watermarks), {}, list(self.finished))

    def lowest(self) -> int | None:
        """The lowest watermark, ms; None if a shard without a watermark holds time, or no unfinished shard is known.

        A shard that has no watermark yet counts with the lowest of its parents' last watermarks.
        """
        lowest: int | None = None
        for shard, parents in self.unfinished.items():
            mark = self.watermarks.get(shard)
            if mark is None:
                inherited = [self.watermarks.get(parent) for parent in parents]
                known = [value for value in inherited if value is not None]
                if not inherited or len(known) < len(inherited):
                    return None
                mark = min(known)
            lowest = mark if lowest is None else min(lowest, mark)
        return lowest


def moved_time(now_ms: int, shards: ShardWatermarks, append_ms: int) -> int:
    """Stream time after a control message (rule T4).

    Args:
        now_ms: stream time before it.
        shards: the shards as they are known with the message.
        append_ms: the broker's append time of the message.
    """
    lowest = shards.lowest()
    return now_ms if lowest is None else max(now_ms, min(lowest, append_ms))
