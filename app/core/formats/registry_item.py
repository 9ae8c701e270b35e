"""A batch in the registry, and its lifecycle.

The item's attributes as DynamoDB types them:

    batch_id (S), version, epoch, line_count, byte_count (N), sha256, raw_key (S), blocks (L of L of N), received_at (N),
    state (S), attempts, next_attempt_at (N), open_epoch (N, only while the batch is open),
    expires_at (N, seconds since the epoch, only of a complete batch, if RETENTION_RAW_DAYS is set: DynamoDB deletes it then)

Versions (rule E10): the item names its version; an item without a version is of version 1. A reader ignores an attribute
that it does not know, and the attribute stays: items are changed attribute by attribute and never written anew.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from app.core.formats.decoding import LATEST_MS, reading, refuse_newer
from app.core.whole_table import whole_table
from app.errors import FormatInvalid, IllegalMove, NewerFormat, RegistryItemsInvalid

ITEM_VERSION: Final = 1
EXPIRES_AT: Final = "expires_at"
_MOST: Final = 2**63
_UUID: Final = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SHA256: Final = re.compile("[0-9a-f]{64}")


def is_batch_id(text: str) -> bool:
    """Whether a text has the form of a batch id."""
    return _UUID.fullmatch(text) is not None


class BatchState(StrEnum):
    """A batch is open until the warehouse's ledger covers its lines."""

    OPEN = "open"
    COMPLETE = "complete"


_MOVES: Final[Mapping[BatchState, frozenset[BatchState]]] = whole_table(BatchState, {
    BatchState.OPEN: frozenset({BatchState.OPEN, BatchState.COMPLETE}),
    BatchState.COMPLETE: frozenset({BatchState.COMPLETE}),
})  # fmt: skip


def move(state: BatchState, target: BatchState) -> BatchState:
    """`target`, if the lifecycle allows the move.

    Raises:
        IllegalMove: a complete batch never opens again.
    """
    if target not in _MOVES[state]:
        raise IllegalMove(f"a batch cannot go from {state} to {target}")
    return target


class BlockPlace(msgspec.Struct, frozen=True, array_like=True):
    """The place of one block in the raw file of its batch; the list's order is the block's number."""

    partition: int
    first_line: int
    lines: int
    byte_start: int
    byte_len: int


class Attempt(msgspec.Struct, frozen=True):
    """A replay of a batch that Kinesis took whole."""

    number: int
    at_ms: int
    reason: str


HISTORY: Final = 20
"""An item keeps so many of its last attempts."""
REASON_LENGTH: Final = 200


class RegistryItem(msgspec.Struct, frozen=True, kw_only=True):
    """One batch: enough to find, verify and cut its raw file again without anything else."""

    batch_id: str
    epoch: int
    line_count: int
    byte_count: int
    """Length of the raw file."""
    sha256: str
    """Hexadecimal, of the raw file."""
    raw_key: str
    blocks: list[BlockPlace]
    received_at_ms: int
    """The earliest received_at of its events."""
    state: BatchState = BatchState.OPEN
    attempts: int = 0
    """Replays by the audit that Kinesis took whole."""
    next_attempt_at_ms: int = 0
    history: list[Attempt] = []
    """The last attempts, ascending; an older version has recorded none."""
    completed_at_ms: int = 0
    """When the audit found it complete; 0 if it is open, or if an older version found it."""


def with_attempt(item: RegistryItem, attempt: Attempt) -> list[Attempt]:
    """The history of a batch with a new attempt: the last `HISTORY` of them."""
    short = Attempt(attempt.number, attempt.at_ms, attempt.reason[:REASON_LENGTH])
    return [*item.history, short][-HISTORY:]


def encode_history(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Attribute `history`."""
    told = ({"attempt": _number(a.number), "at": _number(a.at_ms), "reason": {"S": a.reason}} for a in attempts)
    return {"L": [{"M": each} for each in told]}


def encode_item(item: RegistryItem) -> dict[str, Any]:
    """The attributes of `item`."""
    places = ((b.partition, b.first_line, b.lines, b.byte_start, b.byte_len) for b in item.blocks)
    stored: dict[str, Any] = {
        "batch_id": {"S": item.batch_id},
        "version": _number(ITEM_VERSION),
        "epoch": _number(item.epoch),
        "line_count": _number(item.line_count),
        "byte_count": _number(item.byte_count),
        "sha256": {"S": item.sha256},
        "raw_key": {"S": item.raw_key},
        "blocks": {"L": [{"L": [_number(n) for n in place]} for place in places]},
        "received_at": _number(item.received_at_ms),
        "state": {"S": item.state.value},
        "attempts": _number(item.attempts),
        "next_attempt_at": _number(item.next_attempt_at_ms),
    }
    if item.state is BatchState.OPEN:
        stored["open_epoch"] = _number(item.epoch)
    if item.history:
        stored["history"] = encode_history(item.history)
    if item.completed_at_ms:
        stored["completed_at"] = _number(item.completed_at_ms)
    return stored


def decode_item(stored: Mapping[str, Any]) -> RegistryItem:
    """The item with these attributes.

    Raises:
        FormatInvalid: they are not a batch's, or contradict each other.
        NewerFormat: a newer version registered it.
    """
    named = stored.get("batch_id")
    what = f"registry item {named.get('S') if isinstance(named, Mapping) else named}"
    with reading(what):
        version = _read_number(stored["version"]) if "version" in stored else 1
        refuse_newer(what, version, ITEM_VERSION)
        if version < 1:
            raise FormatInvalid(f"{what} of version {version}")
        return _whole(RegistryItem(
            batch_id=_read_text(stored["batch_id"]),
            epoch=_read_number(stored["epoch"]),
            line_count=_read_number(stored["line_count"]),
            byte_count=_read_number(stored["byte_count"]),
            sha256=_read_text(stored["sha256"]),
            raw_key=_read_text(stored["raw_key"]),
            blocks=[BlockPlace(*map(_read_number, place["L"])) for place in stored["blocks"]["L"]],
            received_at_ms=_read_number(stored["received_at"]),
            state=BatchState(_read_text(stored["state"])),
            attempts=_read_number(stored["attempts"]),
            next_attempt_at_ms=_read_number(stored["next_attempt_at"]),
            history=[_read_attempt(each["M"]) for each in stored["history"]["L"]] if "history" in stored else [],
            completed_at_ms=_read_number(stored["completed_at"]) if "completed_at" in stored else 0,
        ))  # fmt: skip


class ItemReader:
    """Reads the items of a listing, and keeps the errors of those that are no batch: they come behind all others."""

    def __init__(self) -> None:
        self._newer: NewerFormat | None = None
        self._invalid: list[str] = []

    def read(self, stored: Mapping[str, Any]) -> RegistryItem | None:
        """The item with these attributes; None if it cannot be read."""
        try:
            return decode_item(stored)
        except NewerFormat as exc:
            self._newer = exc
        except FormatInvalid as exc:
            self._invalid.append(str(exc))
        return None

    def finish(self) -> None:
        """End the listing.

        Raises:
            NewerFormat: a newer version registered one of the items.
            RegistryItemsInvalid: some of them are no batch; the error names each.
        """
        if self._newer is not None:
            raise self._newer
        if self._invalid:
            raise RegistryItemsInvalid(self._invalid)


def _whole(item: RegistryItem) -> RegistryItem:
    """The item, if its fields agree: its blocks are all of its lines and all of its raw file, in order, without a gap."""
    if not _UUID.fullmatch(item.batch_id):
        raise ValueError("batch_id is no UUID")
    if not _SHA256.fullmatch(item.sha256):
        raise ValueError(f"sha256 {item.sha256!r} is not 64 hexadecimal digits")
    lines = size = 0
    for number, place in enumerate(item.blocks):
        if (place.first_line, place.byte_start) != (lines, size) or not place.lines or not place.byte_len:
            raise ValueError(f"block {number} does not begin where the one before it ends, or is empty")
        lines, size = lines + place.lines, size + place.byte_len
    if not lines or (lines, size) != (item.line_count, item.byte_count):
        raise ValueError(
            f"its blocks have {lines} lines and {size} bytes, the batch has {item.line_count} and {item.byte_count}"
        )
    if not item.epoch or item.received_at_ms > LATEST_MS:
        raise ValueError(f"epoch {item.epoch} or received_at {item.received_at_ms} is out of range")
    return item


def _number(value: int) -> dict[str, str]:
    return {"N": str(value)}


def _read_attempt(stored: Mapping[str, Any]) -> Attempt:
    return Attempt(_read_number(stored["attempt"]), _read_number(stored["at"]), _read_text(stored["reason"]))


def _read_number(attribute: Mapping[str, Any]) -> int:
    number = int(attribute["N"])
    if not 0 <= number < _MOST:
        raise ValueError(f"{number} is out of range")
    return number


def _read_text(attribute: Mapping[str, Any]) -> str:
    text: str = attribute["S"]
    return text
