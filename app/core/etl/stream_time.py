"""A partition's stream time, told by the marks of Kinesis shards (rules T4, T5).

Stream time is the lowest mark of all known shards that are not finished. It never goes back and never passes the broker's
append time of the message that moves it. A slow or dead pump holds it: joins wait, and nothing is lost.
"""

import msgspec

from app.core.formats.block import Control, End
from app.core.join.join_order import UNKNOWN


class ShardWatermarks(msgspec.Struct, array_like=True):
    """What a partition knows of the shards; part of `app.core.etl.meta.EtlMeta`."""

    watermarks: dict[str, int] = {}
    """Shard -> its highest mark, ms; a finished shard's last one stays, for its children to start from."""
    unfinished: dict[str, list[str]] = {}
    """Every known shard without an END -> its parents."""
    finished: list[str] = []
    """Shards that ended; they never reopen (rule T5). In the order in which that was heard."""

    def copy(self) -> "ShardWatermarks":
        """An independent copy."""
        return ShardWatermarks(dict(self.watermarks), dict(self.unfinished), list(self.finished))

    def observe(self, control: Control) -> None:
        """Take a tick's marks and lists, or a shard's END. What else is said of a finished shard is ignored."""
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
        """What is known behind messages that are gone: an END may have been among them, so no shard is known to be open.

        Time stands until the next tick lists the shards anew. That tick may come from a worker whose list is older than the
        gap: where it lacks a child, time may pass the child's first records, whose joins become late (late is not missing);
        where it still has a shard that ended, a later tick says so once more.
        """
        return ShardWatermarks(dict(self.watermarks), {}, list(self.finished))

    def lowest(self) -> int | None:
        """The lowest mark, ms; None where a shard without a mark holds time, or no unfinished shard is known.

        A shard that has no mark yet starts from its parents: it counts with the lowest of their last marks.
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
        shards: what is known of the shards, the message included.
        append_ms: the broker's append time of the message.
    """
    lowest = shards.lowest()
    return now_ms if lowest is None else max(now_ms, min(lowest, append_ms))
