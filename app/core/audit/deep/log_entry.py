"""A row of delivery_log, as checks of the books read it."""

from typing import NamedTuple


class DeliveryLogRow(NamedTuple):
    """A row of delivery_log."""

    txn_id: str
    number: int
    status: str
    rows: int
    stream_time_ms: int
    """-1 for NULL."""
