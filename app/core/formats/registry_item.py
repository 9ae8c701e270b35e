"""A batch as the registry knows it, and its lifecycle."""

from enum import StrEnum

import msgspec

from app.errors import IllegalMove


class BatchState(StrEnum):
    """A batch is open until the warehouse's ledger covers its lines."""

    OPEN = "open"
    COMPLETE = "complete"


_MOVES: dict[BatchState, frozenset[BatchState]] = {
    BatchState.OPEN: frozenset({BatchState.OPEN, BatchState.COMPLETE}),
    BatchState.COMPLETE: frozenset({BatchState.COMPLETE}),
}


def move(state: BatchState, target: BatchState) -> BatchState:
    """`target`, where the lifecycle allows it.

    Raises:
        IllegalMove: a complete batch never opens again.
    """
    if target not in _MOVES[state]:
        raise IllegalMove(f"a batch cannot go from {state} to {target}")
    return target


class BlockPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where one block of a batch lies in its raw file; the list's order is the block's number."""

    partition: int
    first_line: int
    lines: int
    byte_start: int
    byte_len: int


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
