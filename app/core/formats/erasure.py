"""The record of an erasure: the lines that were taken out, by batch; what they said, and whose they were, it does not say.

It is written before anything is changed, so an erasure that dies is finished by the next one. The visitor's id is kept as a
SHA-256: whoever knows the id can see that it was erased, and a short id can be guessed from it.

Version (rule E10): the record names its version, and a reader ignores a field that it does not know.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec
from pyroaring import BitMap

from app.core.formats.decoding import Moment, read_bitmap, read_versioned, reading

ERASURE_VERSION: Final = 1


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """One erasure."""

    version: int = ERASURE_VERSION
    erasure_id: str
    made_at_ms: Moment
    made_by: str
    """The version of the program."""
    visitors: list[str]
    """Hexadecimal SHA-256 of each visitor's id."""
    lines: dict[str, str]
    """Batch -> its erased lines: a Roaring bitmap in base64, as in the ledger."""
    certificates: list[Moment] = []
    """Hours (their beginning) whose certificate was right before, or was not there yet: it is made again."""
    finished_at_ms: Moment | None = None
    """None until everything is done."""

    def line_sets(self) -> dict[str, BitMap]:
        """Batch -> its erased lines.

        Raises:
            FormatInvalid: a text is no bitmap.
        """
        found = {}
        for batch_id, text in self.lines.items():
            with reading(f"erasure {self.erasure_id}, lines of batch {batch_id}"):
                found[batch_id] = read_bitmap(base64.b64decode(text, validate=True), "bitmap")
        return found


def packed(lines: Mapping[str, BitMap]) -> dict[str, str]:
    """Batch -> lines, as the record has them."""
    return {batch_id: base64.b64encode(some.serialize()).decode() for batch_id, some in sorted(lines.items())}


def digest_of_visitor(visitor_id: str) -> str:
    """The visitor's id, as the record has it."""
    return hashlib.sha256(visitor_id.encode()).hexdigest()


_decoder: Final = msgspec.json.Decoder(Erasure)


def encode_erasure(erasure: Erasure) -> bytes:
    """The record as JSON."""
    return msgspec.json.encode(erasure)


def decode_erasure(body: bytes) -> Erasure:
    """The record in `body`.

    Raises:
        NewerFormat: it is one of a newer version.
        FormatInvalid: it is none.
    """
    return read_versioned(_decoder, body, "erasure", ERASURE_VERSION)
