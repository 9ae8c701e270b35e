"""Resident memory of the roles: the bounds from the settings, and the samples."""

import asyncio
from collections import defaultdict
from typing import Final

import psutil

from app.local.stack.life import Home
from app.local.stack.stack_file import read_stack
from app.settings import Settings

MIB: Final = 1024 * 1024
SAMPLE_S: Final = 0.25
BASE_MIB: Final = {"collector": 250, "bridge": 150, "etl": 400, "sink": 250, "delivery": 150, "audit": 200}
"""Python, the libraries and the clients of a role that has done some work, and the messages that Kafka's client fetches
ahead (52 MiB for a broker); the following parts are added."""


def bounds_mib(settings: Settings, partitions: int) -> dict[str, int]:
    """Role -> most resident memory (MiB) of one of its processes that owns `partitions` partitions.

    The collector holds at most MAX_BUFFERED_BYTES of events, once more while it seals and compresses them, and a quarter of
    it in blocks that Kinesis has not taken; a connection is 64 KiB at most, with its head.

    A bridge holds one answer of GetRecords a shard (10 MiB) and the blocks that it sends. The ETL holds STATE_CACHE_BYTES
    for RocksDB and filters (3 bytes an id: nothing yet in an outage's some 600,000), and of each partition the messages that
    wait (16 MiB in the inbox, 32 in hand), the step in flight, the open window, and the steps that are not written yet
    (16 MiB of changes, and as much again to find ids in them and to sort them). The sink holds
    COMMIT_BYTES of row messages a partition, or the files made of them, and 32 MiB that wait or were just taken; one
    partition at a time encodes, in five times its messages. Delivery and audit hold no rows.
    """
    extra = {
        "collector": settings.max_buffered_bytes * 9 // 4 + settings.max_connections * MIB // 16,
        "bridge": 64 * MIB,
        "etl": settings.state_cache_bytes + partitions * 96 * MIB,
        "sink": partitions * (settings.commit_bytes + 32 * MIB) + 5 * settings.commit_bytes,
        "delivery": 50 * MIB,
        "audit": 50 * MIB,
    }
    return {role: base + extra[role] // MIB for role, base in BASE_MIB.items()}


class MemoryWatch:
    """Samples the roles of a stack; every process that a role has had counts."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.phase = ""
        self.peaks_mib: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        """Phase -> role -> highest resident memory."""

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(SAMPLE_S)

    def sample(self) -> None:
        """Look once."""
        stack = read_stack(self._home)
        for process in stack.processes if stack else []:
            try:
                rss_mib = psutil.Process(process.pid).memory_info().rss // MIB
            except psutil.Error:  # it died, and will be started again
                continue
            peaks = self.peaks_mib[self.phase]
            peaks[process.role] = max(peaks[process.role], rss_mib)
