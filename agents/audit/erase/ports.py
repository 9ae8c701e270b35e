"""The ports of an erasure, and its answer."""

from typing import NamedTuple

import msgspec
from pyroaring import BitMap

from agents.audit.deep.ports import DeepPorts
from app.adapters.warehouse_port import Connect


class ErasePorts(NamedTuple):
    """Everything that an erasure reads and changes."""

    deep: DeepPorts
    connect: Connect
    """Opens a session of the warehouse."""


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """Lines that are not erased, and the reason."""

    batch_id: str = ""
    txn_id: str = ""
    lines: int = 0
    reason: str


class EraseReport(msgspec.Struct, kw_only=True):
    """The answer of an erasure."""

    applied: bool
    erasure_id: str = ""
    """Of the erasure that --apply made; empty if nothing of the visitor was found."""
    outcomes: dict[str, int] = {}
    """Outcome of a line until now -> lines: rows by flow, `joined`, `duplicate`."""
    lines: dict[str, int] = {}
    """Batch -> its lines that are erased, or would be."""
    files: int = 0
    """Data files that are written again or deleted, the ledger's among them."""
    raw_files: int = 0
    waiting: list[Left] = []
    """Lines that are on their way: run it again later."""
    refused: list[Left] = []
    """Lines that cannot be erased until something else is mended."""
    resumed: list[str] = []
    """Erasures of earlier runs that had not finished: without --apply they are only named."""

    @property
    def is_done(self) -> bool:
        """Whether nothing of the visitor is left."""
        return self.applied and not self.waiting and not self.refused


class FoundLines(NamedTuple):
    """The visitor's lines that can be erased now, and those that cannot."""

    lines: dict[str, BitMap]
    waiting: list[Left]
    refused: list[Left]
