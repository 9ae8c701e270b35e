"""One client of the stand-in and its own session on PostgreSQL (rule D4).

Messages go through in both directions unchanged, with these exceptions: a COPY from S3 is executed here; CREATE TABLE and
ALTER TABLE are rewritten; PostgreSQL's serialization failures become Redshift's 1023; faults on demand strike.
"""

import asyncio
from typing import Final, NamedTuple, Protocol

import structlog

from app.local.redshift import alter, ddl, wire
from app.local.redshift.copy_statement import CopyRefused, CopyStatement, is_copy_from_s3, parse
from app.local.redshift.faults import ERRORS, Faults, WarehouseFault
from app.local.redshift.files import FileRejected, LoadFailed, S3Files
from app.local.redshift.load import BackendError, load, rows_of
from app.local.redshift.sql_tokens import Token, literal, statements

log = structlog.get_logger(__name__)

_READ_BYTES: Final = 256 * 1024
_IDLE, _IN_TRANSACTION, _FAILED = b"ITE"


class Dropped(Exception):
    """A fault ended the connection."""


class Surroundings(Protocol):
    """The parts that all sessions share."""

    faults: Faults
    files: S3Files

    def next_query_id(self) -> int:
        """The number of a COPY, as `sys_load_error_detail.query_id` and `pg_last_copy_id()` give it."""

    async def record(self, error: FileRejected, client: "ClientWire", query_id: int) -> None:
        """Add to the load errors, outside every client's transaction."""


class ClientWire(NamedTuple):
    """The identity of a session."""

    database: str
    pid: int
    """The pid of its backend, as `pg_backend_pid()` gives it."""


class Session:
    """Serves one client until either side ends."""

    def __init__(
        self, shared: Surroundings, client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        backend: tuple[asyncio.StreamReader, asyncio.StreamWriter], database: str,
    ) -> None:  # fmt: skip
        self._shared = shared
        self._client_in, self._client_out = client
        self._backend_in, self._backend_out = backend
        self._status: int = _IDLE
        self._outstanding = 1  # the startup ends in a ReadyForQuery too
        self._quiet = asyncio.Event()
        self._own: asyncio.Queue[bytes] | None = None  # set while answers are ours and not the client's
        self._silent = False  # the client gets no more messages
        self._next_error: wire.Fields | None = None
        self._database = database
        self._pid = 0

    async def run(self) -> None:
        """Forward both ways until the client, the backend or a fault ends it."""
        tasks = [asyncio.ensure_future(self._from_client()), asyncio.ensure_future(self._from_backend())]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            exc = task.exception()
            if isinstance(exc, Dropped):
                self._client_out.transport.abort()
            elif exc is not None and not isinstance(exc, asyncio.IncompleteReadError | OSError):
                raise exc

    # --- the session as `load.Backend` sees it

    async def send(self, data: bytes) -> None:
        """Write to the backend."""
        self._backend_out.write(data)
        await self._backend_out.drain()

    async def receive(self) -> bytes:
        """The next message that the backend sent us."""
        if self._own is None:
            raise RuntimeError("the backend's answers are the client's now")
        return await self._own.get()

    def answered(self) -> bool:
        """Whether a message waits."""
        return self._own is not None and not self._own.empty()

    async def ask(self, sql: str) -> list[bytes]:
        """Run a query of ours; every message of its answer but ReadyForQuery."""
        await self.send(wire.query(sql))
        messages = []
        while (whole := await self.receive())[0] != wire.READY:
            messages.append(whole)
        return messages

    # --- from the backend

    async def _from_backend(self) -> None:
        splitter = wire.Splitter()
        while data := await self._backend_in.read(_READ_BYTES):
            passing = []
            for whole in splitter.feed(data):
                kind = whole[0]
                if kind == wire.READY:
                    self._status = whole[5]
                elif kind == wire.KEY_DATA:
                    self._pid = int.from_bytes(whole[5:9], "big")
                if self._own is not None and kind not in {wire.NOTICE, wire.PARAMETER}:
                    self._own.put_nowait(whole)
                    continue
                if kind == wire.READY:
                    self._outstanding -= 1
                    if self._outstanding <= 0:
                        self._quiet.set()
                passing.append(self._translated(whole) if kind == wire.ERROR else whole)
            if passing and not self._silent:
                self._client_out.write(b"".join(passing))
                await self._client_out.drain()

    def _translated(self, whole: bytes) -> bytes:
        """An error as Redshift words it."""
        if self._next_error is not None:
            fields, self._next_error = self._next_error, None
            return wire.error(fields)
        return wire.error(translate(wire.fields_of(whole)))

    # --- from the client

    async def _from_client(self) -> None:
        while True:
            whole = await wire.read_message(self._client_in)
            if whole[0] == wire.QUERY:
                await self._query(whole)
                continue
            if whole[0] == wire.PARSE:
                whole = self._parsed(whole)
            elif whole[0] in {wire.SYNC, wire.FUNCTION_CALL}:
                self._expect_ready()
            await self.send(whole)
            if whole[0] == wire.TERMINATE:
                return

    def _expect_ready(self) -> None:
        self._outstanding += 1
        self._quiet.clear()

    async def _forward(self, sql: str) -> None:
        self._expect_ready()
        await self.send(wire.query(sql))

    async def _query(self, whole: bytes) -> None:
        sql = whole[5:-1].decode(errors="replace")
        if await self._struck(sql):
            return
        if refusal := self._shared.faults.refusal(sql):
            await self._forward(ddl.raising(*refusal))
            return
        parts = statements(sql) if _may_differ(sql) else []
        copies = [tokens for tokens in parts if is_copy_from_s3(tokens)]
        if not copies:
            if any(alter.is_alter_table(tokens) for tokens in parts):
                await self._quiet.wait()  # its ReadyForQuery has the transaction status
            await self._forward(_rewritten(sql, parts, in_transaction=self._status != _IDLE))
        elif len(parts) > 1:
            await self._forward(ddl.raising("42601", "COPY from S3 must be a statement of its own"))
        else:
            try:
                copy = parse(copies[0])
            except CopyRefused as exc:
                await self._forward(ddl.raising("42601", str(exc)))
                return
            await self._copy(copy, sql)

    def _parsed(self, whole: bytes) -> bytes:
        """A Parse message: rewritten like a query. COPY is refused, because Redshift's COPY takes no bind parameters."""
        name, sql, rest = whole[5:].split(b"\0", 2)
        text = sql.decode(errors="replace")
        if fault := self._shared.faults.take(text, *ERRORS):
            log.info("fault", kind=fault.kind, statement=text[:80])
            self._next_error = translate(wire.error_of(*ERRORS[fault.kind]))
            return wire.message(wire.PARSE, name + b"\0refused\0" + rest)
        if refusal := self._shared.faults.refusal(text):
            self._next_error = wire.error_of(*refusal)
            return wire.message(wire.PARSE, name + b"\0refused\0" + rest)
        if not _may_differ(text):
            return whole
        parts = statements(text)
        if any(is_copy_from_s3(tokens) for tokens in parts):
            self._next_error = wire.error_of("42601", "COPY takes no bind parameters: send it as literal text")
            text = "refused"
        else:
            text = _rewritten(text, parts, in_transaction=self._status != _IDLE)
        return wire.message(wire.PARSE, name + b"\0" + text.encode() + b"\0" + rest)

    async def _struck(self, sql: str) -> bool:
        """Whether a fault took the statement's place."""
        faults = self._shared.faults
        if fault := faults.take(sql, *ERRORS):
            log.info("fault", kind=fault.kind, statement=sql[:80])
            await self._forward(ddl.raising(*ERRORS[fault.kind]))
            return True
        if faults.take(sql, WarehouseFault.DROP_BEFORE_COMMIT):
            raise Dropped
        if faults.take(sql, WarehouseFault.DROP_AFTER_COMMIT):
            self._silent = True
            await self._forward(sql)
            await self._quiet.wait()
            raise Dropped
        return False

    # --- COPY

    async def _copy(self, copy: CopyStatement, sql: str) -> None:
        await self._quiet.wait()
        if self._status == _FAILED:
            await self._forward("SELECT 1")  # PostgreSQL says why not
            return
        alone = self._status == _IDLE
        self._own = asyncio.Queue()
        query_id = self._shared.next_query_id()
        try:
            answer = await self._executed(copy, sql, query_id, alone=alone)
        finally:
            self._own = None
        self._client_out.write(answer + wire.ready(self._status))
        await self._client_out.drain()

    async def _executed(self, copy: CopyStatement, sql: str, query_id: int, *, alone: bool) -> bytes:
        """Run the COPY, in a transaction of its own if the client has none. Returns: the messages for the client."""
        try:
            if alone:
                await rows_of(self, "BEGIN")
            count = await load(self, self._shared.files, copy, lambda: self._mid_copy(sql))
            await rows_of(self, f"SELECT set_config('instream.copy_count', '{count}', false), "
                                f"set_config('instream.copy_id', '{query_id}', false)")  # fmt: skip
            if alone:
                await rows_of(self, "COMMIT")
        except (LoadFailed, BackendError) as exc:
            if isinstance(exc, LoadFailed) and exc.load_error is not None:
                await self._shared.record(exc.load_error, ClientWire(self._database, self._pid), query_id)
            if alone:
                await self.ask("ROLLBACK")
            elif self._status != _FAILED:
                await self.ask(ddl.raising("XX000", "COPY failed"))
            return wire.error(translate(exc.fields))
        text = f"Load into table '{copy.table[-1]}' completed, {count} record(s) loaded successfully."
        return wire.notice(text) + wire.command_complete("COPY")

    async def _mid_copy(self, sql: str) -> None:
        if self._shared.faults.take(sql, WarehouseFault.DROP_MID_COPY):
            raise Dropped


def _may_differ(sql: str) -> bool:
    """A cheap test whether the text may hold a statement that PostgreSQL does not know."""
    upper = sql.upper()
    return "COPY" in upper or ("TABLE" in upper and ("CREATE" in upper or "ALTER" in upper))


def _rewritten(sql: str, parts: list[list[Token]], *, in_transaction: bool) -> str:
    """The text for PostgreSQL; untouched unless it creates or alters a table."""
    if not any(ddl.is_create_table(tokens) or alter.is_alter_table(tokens) for tokens in parts):
        return sql
    texts = []
    for tokens in parts:
        try:
            if ddl.is_create_table(tokens):
                texts.append(ddl.rewrite(tokens))
            elif alter.is_alter_table(tokens):
                texts.append(alter.rewrite(tokens, alone=not in_transaction and len(parts) == 1))
            else:
                texts.append(" ".join(token.text for token in tokens))
        except ddl.StatementRefused as exc:
            texts.append(ddl.raising(exc.sqlstate, str(exc)))
    return ";\n".join(texts)


def translate(fields: wire.Fields) -> wire.Fields:
    """A PostgreSQL error in Redshift's words: serialization is 1023, a string with too many bytes is too long."""
    if fields.get("C") == "40001":
        detail = f"Serializable isolation violation on table - ({fields.get('M', '')})"
        return wire.error_of("XX000", "1023", detail)
    if fields.get("C") == "23514" and (name := fields.get("n", "")).endswith(ddl.BYTES_SUFFIX):
        return wire.error_of("22001", f"value too long for column {literal(name.removesuffix(ddl.BYTES_SUFFIX))}")
    return fields
