"""One COPY on a client's backend session: files from S3 to PostgreSQL's COPY FROM STDIN, one file at a time.

A file is one COPY of PostgreSQL, so that its bytes are read as they are and an error names its file and line. All of them
run in the client's transaction: they count together or not at all.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Protocol

from app.local.redshift import wire
from app.local.redshift.copy_statement import CopyStatement
from app.local.redshift.ddl import BYTES_SUFFIX
from app.local.redshift.files import FileRejected, LoadFailed, ManifestEntry, S3Files
from app.local.redshift.render import TargetColumn, copy_sql, failed, postgres_reads, rendered
from app.local.redshift.sql_tokens import literal

_SEND_BYTES: Final = 256 * 1024
_CONTEXT: Final = re.compile(r'^COPY \S+, line (\d+)(?:, column ([^:]+))?(?:: "(.*)")?', re.DOTALL)
_BOUND: Final = re.compile(r"\((\d+)\)")
_TOO_LONG: Final = "String length exceeds DDL length"


class Backend(Protocol):
    """The client's own session on PostgreSQL, while only the proxy uses it."""

    async def ask(self, sql: str) -> list[bytes]:
        """Run one simple query; every message of its answer."""

    async def send(self, data: bytes) -> None:
        """Write to the session."""

    async def receive(self) -> bytes:
        """The next message of the session."""

    def answered(self) -> bool:
        """Whether a message waits."""


class BackendError(Exception):
    """PostgreSQL refused a statement that the proxy ran for the client."""

    def __init__(self, fields: wire.Fields) -> None:
        super().__init__(fields.get("M", ""))
        self.fields = fields


async def rows_of(backend: Backend, sql: str) -> list[list[str | None]]:
    """The rows of a query.

    Raises:
        BackendError: PostgreSQL refused it.
    """
    answer = await backend.ask(sql)
    for whole in answer:
        if whole[0] == wire.ERROR:
            raise BackendError(wire.fields_of(whole))
    return [wire.row_of(whole) for whole in answer if whole[0] == wire.DATA_ROW]


async def load(backend: Backend, files: S3Files, copy: CopyStatement, mid_copy: Callable[[], Awaitable[None]]) -> int:
    """Execute `copy`; the number of rows. `mid_copy` is awaited once a part of the data is sent.

    Raises:
        LoadFailed: a file or S3 failed.
        BackendError: PostgreSQL failed.
    """
    columns = await _target_columns(backend, copy)
    entries = await asyncio.to_thread(files.manifest, copy.source)
    total = 0
    for entry in entries:
        if files.is_unreadable(entry.url):
            raise failed(copy, FileRejected(filename=entry.url, err_reason="The file cannot be read", err_code=1220))
        pieces = await asyncio.to_thread(files.pieces, entry, copy.compression)
        if pieces is not None:
            source = pieces if postgres_reads(copy) else rendered(copy, columns, pieces, entry.url)
            total += await _copy_file(backend, copy, columns, entry, source, mid_copy)
    return total


async def _target_columns(backend: Backend, copy: CopyStatement) -> list[TargetColumn]:
    """The columns that the statement fills, in file order."""
    rows = await rows_of(
        backend,
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute "
        f"WHERE attrelid = {literal(copy.target)}::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    )
    types = {name or "": kind or "" for name, kind in rows}
    missing = [name for name in copy.columns if name not in types]
    if missing:
        raise BackendError(wire.error_of("42703", f'column "{missing[0]}" of relation "{copy.table[-1]}" does not exist'))
    return [TargetColumn(name, types[name]) for name in copy.columns or types]


async def _copy_file(  # noqa: PLR0913, PLR0917 - one file of one load
    backend: Backend, copy: CopyStatement, columns: list[TargetColumn], entry: ManifestEntry, pieces: Iterator[bytes],
    mid_copy: Callable[[], Awaitable[None]],
) -> int:  # fmt: skip
    """Load one file; its rows."""
    await backend.send(wire.query(copy_sql(copy, columns)))
    opening = await backend.receive()
    if opening[0] != wire.COPY_IN:
        raise BackendError(wire.fields_of((await _until_ready(backend, opening))[0]))
    try:
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            for at in range(0, len(piece), _SEND_BYTES):
                await backend.send(wire.copy_data(piece[at : at + _SEND_BYTES]))
            await mid_copy()
            if backend.answered():
                break  # PostgreSQL has refused a row already
    except LoadFailed:
        await backend.send(wire.copy_fail("the file cannot be read"))
        await _until_ready(backend)
        raise
    await backend.send(wire.copy_done())
    for whole in await _until_ready(backend):
        if whole[0] == wire.ERROR:
            raise _refused(copy, columns, entry, wire.fields_of(whole))
        if whole[0] == wire.COMMAND_COMPLETE:
            return int(whole[5:-1].split()[-1])
    raise BackendError(wire.error_of("08P01", "COPY ended without an answer"))


async def _until_ready(backend: Backend, first: bytes = b"") -> list[bytes]:
    """Every message before ReadyForQuery."""
    messages = [first] if first else []
    while (whole := await backend.receive())[0] != wire.READY:
        messages.append(whole)
    return messages


def _refused(copy: CopyStatement, columns: list[TargetColumn], entry: ManifestEntry, fields: wire.Fields) -> Exception:
    """Redshift's error for PostgreSQL's refusal of a row: classes 22 and 23 are the file's fault, the others are not."""
    if fields["C"][:2] not in {"22", "23"}:
        return BackendError(fields)
    line, column, value = 0, "", ""
    if match := _CONTEXT.match(fields.get("W", "")):
        line, column, value = int(match[1]), match[2] or "", match[3] or ""
    reason, code = fields["M"], 1207
    if fields["C"] == "23514" and fields.get("n", "").endswith(BYTES_SUFFIX):
        column, reason, code = fields["n"].removesuffix(BYTES_SUFFIX), _TOO_LONG, 1204
    elif fields["C"] == "22001":
        reason, code = _TOO_LONG, 1204
    column = column or fields.get("c", "")
    kinds = {target.name: target.type for target in columns}
    bound = _BOUND.search(kinds.get(column, ""))
    return failed(copy, FileRejected(
        filename=entry.url, line_number=line, colname=column, type=kinds.get(column, ""), raw_line=value[:1024],
        col_length=bound[1] if bound else "", raw_field_value=value[:1024] if match and match[2] else "",
        err_code=code, err_reason=reason[:1024],
    ))  # fmt: skip
