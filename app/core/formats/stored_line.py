"""A line as the raw file of its batch holds it."""

from typing import NamedTuple


class StoredLine(NamedTuple):
    """One line as the raw file holds it."""

    data: bytes
    """Canonical JSON in UTF-8, without the LF."""
    key: bytes
    """What decides the partition: page_view_id, or event_id where there is none, or the original line if malformed."""
    valid: bool
    reason: str | None
    """`field: rule` of a malformed line."""
    received_at_ms: int
