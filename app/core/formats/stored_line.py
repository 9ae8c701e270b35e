"""A line in the raw file of its batch."""

from typing import NamedTuple


class StoredLine(NamedTuple):
    """One line of a raw file."""

    data: bytes
    """Canonical JSON in UTF-8, without the LF."""
    key: bytes
    """The value that decides the partition: page_view_id, else event_id, or the original line if it is malformed."""
    valid: bool
    reason: str | None
    """`field: rule` of a malformed line."""
    received_at_ms: int
    is_mended: bool = False
    """Whether a field of a valid line broke its rule, so that reading it took longer."""
