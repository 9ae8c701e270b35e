"""Targets: the SQL, the files and the wire messages that the stand-in for Redshift takes."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from app.core.delivery.schema import add_column, create_table, resize_column
from app.core.delivery.statements import copy as copy_of
from app.core.formats.flows import BY_NAME
from app.core.formats.tables import TABLES
from app.local.redshift import alter, ddl, wire
from app.local.redshift.copy_statement import CopyRefused, is_copy_from_s3, parse
from app.local.redshift.files import LoadFailed, decompress
from app.local.redshift.render import TargetColumn, copy_sql, rendered
from app.local.redshift.sql_tokens import statements
from tests.rig.fuzz.of_formats import SAMPLES
from tests.rig.fuzz.target import Target

_FILE: Final = b"\n-- file --\n"
_URL: Final = "s3://lake/file"


def _translate(data: bytes) -> None:
    """Every statement of a query, as a session takes it."""
    for tokens in statements(data.decode(errors="replace")):
        if is_copy_from_s3(tokens):
            parse(tokens)
        elif ddl.is_create_table(tokens):
            ddl.rewrite(tokens)
        elif alter.is_alter_table(tokens):
            alter.rewrite(tokens, alone=True)


def _load(data: bytes) -> None:
    """A COPY and the file that it reads."""
    sql, _, content = data.partition(_FILE)
    (tokens,) = statements(sql.decode(errors="replace"))[:1] or [[]]
    copy = parse(tokens)
    columns = [TargetColumn(name, _TYPES.get(name, "character varying(16)")) for name in copy.columns or tuple(_TYPES)]
    copy_sql(copy, columns)
    pieces = iter([content])
    for _ in rendered(copy, columns, decompress(pieces, copy.compression, _URL) if copy.compression else pieces, _URL):
        pass


_TYPES: Final = {"event_id": "character varying(128)", "received_at": "timestamp without time zone", "webdriver": "boolean"}


def _messages(data: bytes) -> None:
    """A connection: the startup message, and messages until its bytes end."""
    loop = asyncio.new_event_loop()
    try:
        reader = asyncio.StreamReader(loop=loop)
        reader.feed_data(data)
        reader.feed_eof()
        _, first = _now(wire.read_startup(reader))
        wire.with_options(first, "-c x=1")
        while not reader.at_eof():
            whole = _now(wire.read_message(reader))
            wire.fields_of(whole)
    finally:
        loop.close()


def _now(step: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        step.send(None)
    except StopIteration as exc:
        return exc.value
    raise AssertionError("all bytes are there, and it waits")


def _startup(**pairs: str) -> bytes:
    body = b"\x00\x03\x00\x00" + b"".join(f"{name}\0{value}\0".encode() for name, value in pairs.items()) + b"\0"
    return (len(body) + 4).to_bytes(4, "big") + body


_COLUMN: Final = next(column for column in TABLES[0].columns if column.max_bytes)
_COPIED: Final = ("page_views", "ad_clicks", "ledger")
_COPIES: Final = tuple(copy_of(BY_NAME[name], "s3://lake/m", "default").text.encode() for name in _COPIED)
_STATEMENTS: Final = (
    *(create_table(table).encode() for table in TABLES[:4]),
    add_column(TABLES[0], _COLUMN).encode(), resize_column(TABLES[0], _COLUMN).encode(), *_COPIES,
    b'ALTER TABLE public.t ADD PRIMARY KEY (a, "b"); ALTER TABLE t DROP COLUMN c RESTRICT',
    b"ALTER TABLE t RENAME COLUMN a TO b; ALTER TABLE t RENAME TO u",
    b"ALTER TABLE t ALTER COLUMN v TYPE CHARACTER VARYING(MAX); ALTER TABLE t ALTER DISTSTYLE KEY DISTKEY a",
    b"ALTER TABLE t ALTER COMPOUND SORTKEY (a, b); ALTER TABLE t ADD COLUMN b VARCHAR(3) DEFAULT 'x' NOT NULL",
    b"CREATE TABLE IF NOT EXISTS u (a BIGINT PRIMARY KEY, b TEXT REFERENCES s.v (c) ENCODE zstd, "
    b"CONSTRAINT x UNIQUE (a, b)) DISTKEY(a)",
    b"COPY t (a, b) FROM 's3://b/m' IAM_ROLE default MANIFEST FORMAT AS CSV QUOTE AS '''' DELIMITER '\\011' GZIP "
    b"NULL AS '\\0' BLANKSASNULL EMPTYASNULL MAXERROR AS 0 STATUPDATE OFF REGION 'x' "
    b"TIMEFORMAT 'epochmillisecs' -- c\n/* d */",
)  # fmt: skip
_LOADS: Final = (
    *(copy + _FILE + SAMPLES[f"file.{name}"][-1] for copy, name in zip(_COPIES, _COPIED, strict=True)),
    b"COPY t (event_id, received_at, webdriver) FROM 's3://b/m' IAM_ROLE default MANIFEST CSV DELIMITER '|' "
    b"TIMEFORMAT 'epochsecs'" + _FILE + b'e1|1750000000|t\n"e|""2"|5|\n\\N||\n',
)  # fmt: skip

TARGETS = (
    Target("redshift.sql", _STATEMENTS, _translate, (CopyRefused, ddl.StatementRefused)),
    Target("redshift.load", _LOADS, _load, (CopyRefused, LoadFailed)),
    Target(
        "redshift.wire",
        (_startup(user="u", database="d") + wire.query("SELECT 1") + wire.message(wire.PARSE, b"n\0SELECT $1\0\0\0"),),
        _messages, (ValueError, OSError, EOFError),
    ),
)  # fmt: skip
