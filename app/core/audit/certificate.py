"""The certificate of an hour: what became of every line that the collectors acknowledged in it (rule A4).

An hour is that of the batches' ids. Its digest stands for the batch ids, the sha256 of the raw files and the ledger, line by
line: whoever has the same registry and ledger makes the same digest. The signature is an HMAC-SHA256 with a key of the
installation, or without a key a plain SHA-256, which finds mistakes and no forger.

Version (rule E10): the certificate names its version, and a reader ignores a field that it does not know.
"""

import hashlib
import hmac
from array import array
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec
from pyroaring import BitMap

from app.core.audit.reconcile import read_lines
from app.core.formats.decoding import Count, Moment, read_versioned
from app.core.formats.flows import OUTCOMES
from app.core.formats.object_keys import hour_path
from app.core.formats.registry_item import RegistryItem

CERTIFICATE_VERSION: Final = 1
HOUR_MS: Final = 3_600_000


class SignedWith(StrEnum):
    """How a certificate is signed."""

    HMAC_SHA256 = "hmac-sha256"
    SHA256 = "sha256"
    """No key is set."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """The books of one hour."""

    version: int = CERTIFICATE_VERSION
    hour: str
    """UTC, `2026-11-28T03`."""
    made_at_ms: Moment
    batches: Count
    lines: Count
    """Lines in: the sum of the registry's line counts."""
    outcomes: dict[str, int]
    """Outcome -> lines: rows by flow, `joined`, `duplicate`."""
    difference: int
    """Lines in less lines with an outcome: 0, or a line is missing or doubled."""
    digest: str
    """Hexadecimal SHA-256 of batch ids, sha256 of raw files and ledger."""
    signed_with: SignedWith
    signature: str = ""
    """Hexadecimal, of the certificate without this field."""

    @property
    def is_balanced(self) -> bool:
        """Whether every line has one outcome."""
        return self.difference == 0


class BatchBooks(msgspec.Struct, frozen=True):
    """One batch as a certificate counts it."""

    batch_id: str
    line_count: int
    sha256: str
    outcomes: Mapping[str, BitMap]
    """Outcome -> lines, by the warehouse's ledger."""
    counted: int
    """The sum of the ledger rows' counts: a line that is there twice counts twice."""


def books_of(item: RegistryItem, entries: Iterable[tuple[str, int, str]]) -> BatchBooks:
    """The books of a batch.

    Args:
        item: the batch in the registry.
        entries: outcome, count and line set of each of its ledger rows.
    """
    outcomes: dict[str, BitMap] = {}
    counted = 0
    for outcome, count, line_set in entries:
        lines = read_lines(line_set) or BitMap()
        if outcome in outcomes:
            outcomes[outcome] |= lines
        else:
            outcomes[outcome] = lines
        counted += count
    return BatchBooks(item.batch_id, item.line_count, item.sha256, outcomes, counted)


class HourBooks:
    """Adds the books of an hour's batches up. Batches are added in the order of their ids."""

    def __init__(self, hour_ms: int) -> None:
        """`hour_ms`: the beginning of the hour."""
        self._hour_ms = hour_ms
        self._digest = hashlib.sha256()
        self._counts: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self._batches = self._lines = self._counted = 0
        self._last = ""

    def add(self, books: BatchBooks) -> None:
        """Add the next batch.

        Raises:
            ValueError: its id does not follow the one before it.
        """
        if books.batch_id <= self._last:
            raise ValueError(f"batch {books.batch_id} comes behind {self._last}")
        self._last = books.batch_id
        self._digest.update(f"{books.batch_id} {books.line_count} {books.sha256}\n".encode())
        for outcome in sorted(books.outcomes):
            lines = books.outcomes[outcome]
            self._digest.update(f"{outcome} {len(lines)}\n".encode())
            self._digest.update(_packed(lines))
            self._counts[outcome] = self._counts.get(outcome, 0) + len(lines)
        self._batches += 1
        self._lines += books.line_count
        self._counted += books.counted

    def certificate(self, made_at_ms: int, key: str | None) -> Certificate:
        """The signed certificate of the batches so far."""
        certificate = Certificate(
            hour=hour_name(self._hour_ms), made_at_ms=made_at_ms, batches=self._batches, lines=self._lines,
            outcomes=dict(self._counts), difference=self._lines - self._counted, digest=self._digest.hexdigest(),
            signed_with=SignedWith.SHA256 if key is None else SignedWith.HMAC_SHA256,
        )  # fmt: skip
        return msgspec.structs.replace(certificate, signature=sign(certificate, key))


def _packed(lines: BitMap) -> bytes:
    """The line numbers, ascending, each as 4 bytes little-endian: one form for one set."""
    packed = array("I", lines.to_array())
    if packed.itemsize != 4 or array("I", [1]).tobytes()[:1] != b"\x01":
        return b"".join(line.to_bytes(4, "little") for line in lines)
    return packed.tobytes()


def sign(certificate: Certificate, key: str | None) -> str:
    """The signature of a certificate, whatever its field `signature` holds."""
    text = encode_certificate(msgspec.structs.replace(certificate, signature=""))
    if key is None:
        return hashlib.sha256(text).hexdigest()
    return hmac.new(key.encode(), text, hashlib.sha256).hexdigest()


def is_signed(certificate: Certificate, key: str | None) -> bool:
    """Whether the signature is that of the certificate; without the key only a plain one can be told."""
    if certificate.signed_with is SignedWith.HMAC_SHA256 and key is None:
        return False
    used = key if certificate.signed_with is SignedWith.HMAC_SHA256 else None
    return hmac.compare_digest(certificate.signature, sign(certificate, used))


def same_books(one: Certificate, other: Certificate) -> bool:
    """Whether two certificates say the same of an hour, whoever made them and when."""
    return (one.hour, one.batches, one.lines, one.outcomes, one.difference, one.digest) == (
        other.hour, other.batches, other.lines, other.outcomes, other.difference, other.digest,
    )  # fmt: skip


_encoder: Final = msgspec.json.Encoder(order="deterministic")
_decoder: Final = msgspec.json.Decoder(Certificate)


def encode_certificate(certificate: Certificate) -> bytes:
    """The certificate as JSON; the same value gives the same bytes."""
    return _encoder.encode(certificate)


def decode_certificate(body: bytes) -> Certificate:
    """The certificate in `body`.

    Raises:
        NewerFormat: it is one of a newer version.
        FormatInvalid: it is none.
    """
    return read_versioned(_decoder, body, "certificate", CERTIFICATE_VERSION)


def hour_name(hour_ms: int) -> str:
    """An hour for a reader: `2026-11-28T03`."""
    day, _, hour = hour_path(hour_ms).partition("/")
    return f"{day.removeprefix('dt=')}T{hour.removeprefix('hour=')}"
