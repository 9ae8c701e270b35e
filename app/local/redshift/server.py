"""The stand-in's server: accepts clients, opens a backend session for each, and prepares the database.

Sessions run REPEATABLE READ, one snapshot a transaction, as Redshift's serializable isolation shows it to a reader.
"""

import asyncio
import itertools
import os
import time
from typing import Final
from urllib.parse import quote

import psycopg
import structlog
from aiohttp import web
from psycopg import sql

from app.local.redshift import wire
from app.local.redshift.faults import Faults, WarehouseFault
from app.local.redshift.files import FileRejected, S3Files
from app.local.redshift.session import ClientWire, Session

log = structlog.get_logger(__name__)

_OPTIONS: Final = r"-c default_transaction_isolation=repeatable\ read -c timezone=UTC"
_BOOTSTRAP: Final = (
    "CREATE OR REPLACE FUNCTION public.getdate() RETURNS timestamp LANGUAGE sql VOLATILE AS "
    "$$ SELECT date_trunc('second', clock_timestamp() AT TIME ZONE 'UTC') $$",
    "CREATE OR REPLACE FUNCTION public.pg_last_copy_count() RETURNS bigint LANGUAGE sql STABLE AS "
    "$$ SELECT coalesce(nullif(current_setting('instream.copy_count', true), ''), '0')::bigint $$",
    "CREATE OR REPLACE FUNCTION public.pg_last_copy_id() RETURNS bigint LANGUAGE sql STABLE AS "
    "$$ SELECT coalesce(nullif(current_setting('instream.copy_id', true), ''), '-1')::bigint $$",
    "CREATE OR REPLACE FUNCTION public.json_extract_path_text(text, VARIADIC text[]) RETURNS text LANGUAGE sql IMMUTABLE AS "
    "$$ SELECT coalesce($1::json #>> $2, '') $$",
    "CREATE TABLE IF NOT EXISTS public.stl_load_errors (userid integer, slice integer, tbl integer, starttime timestamp, "
    "session integer, query bigint, filename text, line_number bigint, colname text, type text, col_length text, "
    "position integer, raw_line text, raw_field_value text, err_code integer, err_reason text)",
    "CREATE OR REPLACE VIEW public.sys_load_error_detail AS SELECT userid AS user_id, query AS query_id, "
    "0::bigint AS transaction_id, session AS session_id, current_database()::text AS database_name, tbl AS table_id, "
    "starttime AS start_time, filename AS file_name, line_number, colname AS column_name, type AS column_type, "
    "col_length AS column_length, position, err_code AS error_code, err_reason AS error_message "
    "FROM public.stl_load_errors",
)
_LOAD_ERROR: Final = (
    "INSERT INTO public.stl_load_errors (userid, slice, tbl, starttime, session, query, filename, line_number, colname, "
    "type, col_length, position, raw_line, raw_field_value, err_code, err_reason) VALUES (100, 0, 0, "
    "clock_timestamp() AT TIME ZONE 'UTC', %s, %s, %s, %s, %s, %s, %s, 0, %s, %s, %s, %s)"
)


class StandIn:
    """Everything that the sessions share."""

    def __init__(self, backend: tuple[str, int], user: str, database: str) -> None:
        self.faults = Faults()
        self.files = S3Files(self.faults.is_unreadable)
        self._backend = backend
        self._user = user
        self._database = database
        self._query_ids = itertools.count(int(time.time()) * 1000)
        self._sessions: set[asyncio.Task[None]] = set()

    def next_query_id(self) -> int:
        """The number of a COPY."""
        return next(self._query_ids)

    async def prepare(self, timeout_s: float = 60) -> None:
        """Wait for the backend; make the database, Redshift's functions and tables of load errors if they are missing."""
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    server = await psycopg.AsyncConnection.connect(self._url("postgres"), autocommit=True)
                    break
                except psycopg.OperationalError as exc:
                    log.debug("backend not ready", error=str(exc))
                    await asyncio.sleep(0.1)
        async with server:
            found = await server.execute("SELECT 1 FROM pg_database WHERE datname = %s", (self._database,))
            if await found.fetchone() is None:
                await server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self._database)))
        async with await psycopg.AsyncConnection.connect(self._url(self._database)) as database:
            for statement in _BOOTSTRAP:
                await database.execute(statement.encode())

    async def record(self, error: FileRejected, client: ClientWire, query_id: int) -> None:
        """Add to the load errors on a connection of its own: the row outlives the client's rollback."""
        values = (
            client.pid, query_id, error.filename, error.line_number, error.colname, error.type, error.col_length,
            error.raw_line, error.raw_field_value, error.err_code, error.err_reason,
        )  # fmt: skip
        plain = tuple(value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values)
        async with await psycopg.AsyncConnection.connect(self._url(client.database), autocommit=True) as connection:
            await connection.execute(_LOAD_ERROR, plain)

    def _url(self, database: str) -> str:
        password = os.environ.get("PGPASSWORD")
        who = quote(self._user, safe="") + (":" + quote(password, safe="") if password else "")
        host, port = self._backend
        return f"postgresql://{who}@{host}:{port}/{quote(database, safe='')}?gssencmode=disable&client_encoding=utf8"

    async def serve(self, host: str, port: int, control_port: int | None) -> None:
        """Listen until cancelled; every session is closed then."""
        control = web.AppRunner(self.faults.application(), access_log=None)
        await control.setup()
        if control_port is not None:
            await web.TCPSite(control, "127.0.0.1", control_port).start()
        server = await asyncio.start_server(self._accept, host, port)
        try:
            await server.serve_forever()
        finally:
            server.close()
            for task in self._sessions:
                task.cancel()
            await asyncio.gather(*self._sessions, return_exceptions=True)
            await control.cleanup()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._sessions.add(task)
            task.add_done_callback(self._sessions.discard)
        try:
            await self._client(reader, writer)
        except (asyncio.IncompleteReadError, OSError, ValueError) as exc:
            log.debug("client gone", error=str(exc))
        except Exception:
            log.exception("session failed")
        finally:
            writer.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from its first byte."""
        code, first = await wire.read_startup(reader)
        while code in {wire.SSL_REQUEST, wire.GSS_REQUEST}:
            writer.write(b"N")
            await writer.drain()
            code, first = await wire.read_startup(reader)
        if self.faults.take("", WarehouseFault.REFUSE):
            writer.transport.abort()
            return
        try:
            backend_reader, backend_writer = await asyncio.open_connection(*self._backend)
        except OSError as exc:
            writer.write(wire.error(wire.error_of("57P03", f"the warehouse is not available: {exc}") | {"S": "FATAL"}))
            await writer.drain()
            return
        try:
            backend_writer.write(first if code == wire.CANCEL_REQUEST else wire.with_options(first, _OPTIONS))
            await backend_writer.drain()
            if code != wire.CANCEL_REQUEST:
                who = wire.parameters(first)
                database = who.get("database") or who.get("user", self._database)
                await Session(self, (reader, writer), (backend_reader, backend_writer), database).run()
        finally:
            backend_writer.close()
