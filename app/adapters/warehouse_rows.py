"""Rows of the warehouse in the order of their batches, some at a time: for a comparison that holds no table in memory."""

import base64
from collections.abc import AsyncIterator
from typing import Any, Final

from pyroaring import BitMap

from app.adapters.warehouse import Connection, ask
from app.adapters.warehouse_port import COPY_TIMEOUT_S
from app.core.delivery import statements
from app.core.formats.decoding import read_bitmap, reading
from app.core.formats.flows import Flow

AT_ONCE: Final = 5_000
"""Rows of one FETCH."""


class RowStream:
    """The rows of one flow, or of the ledger, of a range of batches. It has its connection for itself, in a transaction."""

    def __init__(self, connection: Connection, flow: Flow) -> None:
        self._connection = connection
        self._flow = flow
        self._at = flow.names.index("batch_id")
        self._rows: list[tuple[Any, ...]] = []
        self._ended = False

    async def open(self, first_id: str, end_id: str) -> None:
        """Begin with the rows of the batches from `first_id` to before `end_id`.

        Raises:
            WarehouseError: the warehouse refused the question, or the connection is lost.
            ServiceUnavailable: no answer in time.
        """
        await ask(self._connection, statements.rows_of_batches(self._flow, first_id, end_id), COPY_TIMEOUT_S)

    async def upto(self, end_id: str) -> list[tuple[Any, ...]]:
        """The next rows, those of batches before `end_id`; later calls go on behind them.

        Raises: as `open`.
        """
        taken: list[tuple[Any, ...]] = []
        async for some in self._chunks():
            inside = sum(row[self._at] < end_id for row in some)
            taken += some[:inside]
            self._rows = some[inside:]
            if self._rows:
                break
        return taken

    async def _chunks(self) -> AsyncIterator[list[tuple[Any, ...]]]:
        while self._rows or not self._ended:
            if not self._rows:
                self._rows = await ask(self._connection, statements.fetch(AT_ONCE), COPY_TIMEOUT_S)
                self._ended = len(self._rows) < AT_ONCE
            some, self._rows = self._rows, []
            yield some


async def read_duplicates(connection: Connection, first_id: str, end_id: str) -> dict[str, BitMap]:
    """Batch -> the lines that the ledger calls duplicates, of the batches from `first_id` to before `end_id`.

    Raises:
        FormatInvalid: a line set is no bitmap.
        WarehouseError, ServiceUnavailable: the warehouse gives no answer.
    """
    found: dict[str, BitMap] = {}
    for batch_id, line_set in await ask(connection, statements.duplicates_of(first_id, end_id), COPY_TIMEOUT_S):
        with reading(f"line_set of batch {batch_id}"):
            lines = read_bitmap(base64.b64decode(line_set, validate=True), "bitmap")
        found[batch_id] = found.get(batch_id, BitMap()) | lines
    return found
