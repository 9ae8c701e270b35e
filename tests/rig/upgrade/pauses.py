"""How long each partition showed nothing new, from the moments at which its rows became visible."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from app.adapters.warehouse import Connection
from app.adapters.warehouse_port import moment_ms

Arrivals = Mapping[int, Sequence[float]]
"""Partition -> moments (s since the epoch), in order, at which rows of it became visible in the warehouse."""

_LOADED = """
    SELECT "partition", loaded_at FROM analytics.delivery_log
    WHERE epoch = %s AND status = 'loaded' AND "rows" > 0 ORDER BY loaded_at
"""


class Pause(msgspec.Struct, frozen=True):
    """A time in which a partition showed nothing new."""

    partition: int
    from_s: float
    until_s: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.until_s - self.from_s


async def read_arrivals(connection: Connection, epoch: int) -> Arrivals:
    """When loads that had rows of a partition were made, by the warehouse's clock."""
    cursor = await connection.execute(_LOADED.encode(), [epoch])
    return arrivals(await cursor.fetchall())


def arrivals(rows: Iterable[Sequence[Any]]) -> Arrivals:
    """The moments of rows (partition, loaded_at), which are in order of time."""
    found: dict[int, list[float]] = defaultdict(list)
    for partition, moment in rows:
        found[partition].append(moment_ms(moment) / 1000)
    return dict(found)


def longest(found: Arrivals, from_s: float, until_s: float) -> Pause | None:
    """The longest time between two arrivals of one partition that has a part in `from_s` to `until_s`; None without any.

    The time before a partition's first arrival, and the time behind its last one, is no pause: its other end is not known.
    """
    pauses = [
        Pause(partition, before, after)
        for partition, moments in found.items()
        for before, after in pairwise(moments)
        if before < until_s and after > from_s
    ]
    return max(pauses, key=lambda pause: pause.seconds, default=None)


def longest_by_partition(found: Arrivals, from_s: float, until_s: float) -> dict[int, Pause]:
    """Partition -> its longest pause, as `longest`."""
    pauses = {partition: longest({partition: moments}, from_s, until_s) for partition, moments in sorted(found.items())}
    return {partition: pause for partition, pause in pauses.items() if pause is not None}


def absent_since(found: Arrivals, since_s: float, partitions: int, times: int = 1) -> list[int]:
    """The partitions that did not show something new so often after a moment."""
    return [number for number in range(partitions) if sum(moment > since_s for moment in found.get(number, ())) < times]
