"""Seeks a partition back over a gap in the messages of its consumer (rule E4).

Faust and aiokafka can drop messages without a word, and commit past them. A reader that needs every message compares
offsets, and seeks back to the message that did not come.
"""

from typing import Final, Protocol

import structlog
from faust.types import TP

from app.clock import Clock
from app.core.backoff import Backoff
from app.errors import SourceGap

log = structlog.get_logger(__name__)

SEEK_PATIENCE_S: Final = 5.0
"""After a seek, messages from before it still arrive: a gap is sought again only after this time."""
QUIET_BACKOFF: Final = Backoff(first_s=SEEK_PATIENCE_S, longest_s=80.0)
"""If neither the sought message nor a later one comes, it is sought again after 5, 10, ... 80 s, because Faust may have
dropped it: a message that was on its way at the seek makes Faust believe that the following messages were read before."""
MAX_SEEKS: Final = 12
"""After so many fruitless seeks in a row the partition's log counts as broken."""


class Repositions(Protocol):
    """A consumer that can be put at an offset: `app.shell.faust_app.InstreamApp`."""

    async def reposition(self, tp: TP, offset: int) -> None:
        """Read and commit `tp` from `offset` on."""


class Seeker:
    """Remembers the last seek of one partition and the number of fruitless seeks."""

    def __init__(self, consumer: Repositions, clock: Clock, tp: TP) -> None:
        self._consumer = consumer
        self._clock = clock
        self._tp = tp
        self._sought_at_s: float | None = None
        self._seeks = 0
        self._quiet_seeks = 0

    def came(self) -> None:
        """The wanted message came."""
        self._sought_at_s, self._seeks, self._quiet_seeks = None, 0, 0

    async def seek(self, wanted: int) -> None:
        """Put the consumer at `wanted`."""
        self._sought_at_s = self._clock.monotonic_s()
        await self._consumer.reposition(self._tp, wanted)

    async def seek_back(self, wanted: int, got: int) -> None:
        """Message `got` came instead of `wanted`: seek, unless a seek may still be on its way.

        Raises:
            SourceGap: `wanted` does not come although it was sought again and again.
        """
        if self._sought_at_s is not None and self._clock.monotonic_s() - self._sought_at_s <= SEEK_PATIENCE_S:
            return
        log.warning("gap in the input, seeking back", tp=str(self._tp), wanted=wanted, got=got)
        self._seeks += 1
        if self._seeks > MAX_SEEKS:
            raise SourceGap(f"{self._tp.topic}[{self._tp.partition}]: {wanted} never comes, {got} does")
        await self.seek(wanted)

    async def seek_again(self, wanted: int) -> float | None:
        """Seek once more if nothing followed the last seek; seconds until the next time, None if nothing is sought."""
        if self._sought_at_s is None:
            return None
        due_s = self._sought_at_s + QUIET_BACKOFF.pause_s(self._quiet_seeks + 1)
        left_s = due_s - self._clock.monotonic_s()
        if left_s > 0:
            return left_s
        self._quiet_seeks += 1
        await self.seek(wanted)
        return SEEK_PATIENCE_S
