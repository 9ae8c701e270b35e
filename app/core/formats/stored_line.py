"""Lines as the raw file of their batch holds them: one by one, or those of a request in one text."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Counts: TypeAlias = npt.NDArray[np.int64]


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


class PackedLines(NamedTuple):
    """The lines of one request; at least one."""

    text: bytearray
    """Canonical JSON in UTF-8, LF behind every line; never changed."""
    sizes: Counts
    """int64[n]: the bytes of each line with its LF; their sum is the length of `text`."""
    crcs: Counts
    """int64[n]: the CRC-32 of each line's key (`StoredLine.key`)."""
    received_at_ms: int
    """The earliest received_at of the lines."""
    reasons: tuple[tuple[int, str], ...] = ()
    """The number and the reason of each malformed line, in order."""

    @classmethod
    def of(cls, lines: Sequence[StoredLine]) -> "PackedLines":
        """The same lines in one text."""
        return cls(
            bytearray().join(piece for line in lines for piece in (line.data, b"\n")),
            np.array([len(line.data) + 1 for line in lines], np.int64),
            np.array([zlib.crc32(line.key) for line in lines], np.int64),
            min(line.received_at_ms for line in lines),
            tuple((number, line.reason or "") for number, line in enumerate(lines) if not line.valid),
        )

    @property
    def count(self) -> int:
        """The number of lines."""
        return len(self.sizes)
