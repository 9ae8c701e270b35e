"""Lines as the raw file of their batch holds them: one by one, or those of a request in one text."""

import sys
import zlib
from array import array
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Counts: TypeAlias = npt.NDArray[np.int64]
MOST_REASONS: Final = 10
"""Malformed lines of a request whose reasons are kept."""


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
    malformed: int = 0
    """How many of them are malformed."""
    reasons: tuple[tuple[int, str], ...] = ()
    """The number and the reason of the first `MOST_REASONS` malformed lines."""

    @property
    def line_count(self) -> int:
        """The number of lines."""
        return len(self.sizes)

    @property
    def held_bytes(self) -> int:
        """The memory that they need."""
        return sys.getsizeof(self.text) + self.sizes.nbytes + self.crcs.nbytes


class LinePacker:
    """Puts lines into one text, one after the other."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._sizes = array("q")
        self._crcs = array("q")
        self._malformed = 0
        self._reasons: list[tuple[int, str]] = []

    def add(self, line: StoredLine) -> None:
        """Add a line."""
        if not line.valid:
            if self._malformed < MOST_REASONS:
                self._reasons.append((len(self._sizes), line.reason or ""))
            self._malformed += 1
        self._text += line.data
        self._text += b"\n"
        self._sizes.append(len(line.data) + 1)
        self._crcs.append(zlib.crc32(line.key))

    def add_text(self, text: memoryview, sizes: Counts, crcs: Counts) -> None:
        """Add valid lines, each with its LF."""
        self._text += text
        self._sizes.frombytes(sizes.tobytes())
        self._crcs.frombytes(crcs.tobytes())

    def pack(self, received_at_ms: int) -> PackedLines:
        """The lines that were added; nothing can be added any more."""
        sizes, crcs = (np.frombuffer(counts, np.int64) for counts in (self._sizes, self._crcs))
        return PackedLines(self._text, sizes, crcs, received_at_ms, self._malformed, tuple(self._reasons))
