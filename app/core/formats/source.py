"""Messages of topic `blocks` as the ETL takes them."""

from typing import NamedTuple

from app.core.formats.block import BlockHeader


class SourceMessage(NamedTuple):
    """A message of topic `blocks`."""

    offset: int
    timestamp_ms: int
    """The broker's append time."""
    value: bytes
    """A block's envelope or a control message."""


class AcceptedBlock(NamedTuple):
    """A block that the step takes, with the partition's time at its place in the log."""

    header: BlockHeader
    offset: int
    text: bytes
    """Its lines: NDJSON, `header.lines` of them."""
    stream_time_ms: int

    @property
    def stored_ms(self) -> int:
        """The time that `seen`, `blocks` and `views` remember for it (rule E7)."""
        return max(self.stream_time_ms, self.header.received_at_ms)
