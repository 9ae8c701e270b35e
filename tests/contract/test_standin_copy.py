"""The stand-in executes COPY as Redshift's guide says, and refuses what it does not know."""

import bz2
import gzip
import io
from typing import Any

import fastavro
import psycopg
import pytest
import zstandard

from app.adapters.warehouse import connect
from tests.worlds.warehouse import Warehouse

TABLE = (
    "CREATE TABLE t (id INTEGER ENCODE az64 PRIMARY KEY, name VARCHAR(8) ENCODE zstd, at TIMESTAMP SORTKEY, ok BOOLEAN, "
    "big BIGINT, made TIMESTAMP DEFAULT GETDATE(), UNIQUE (name), FOREIGN KEY (id) REFERENCES t (id)) "
    "DISTSTYLE KEY DISTKEY (id) BACKUP NO"
)
COLUMNS = "(id, name, at, ok, big)"
CSV = r"CSV DELIMITER '\t' EMPTYASNULL NULL AS '\0' TIMEFORMAT 'auto'"
ROW = b"1\tann\t2026-01-02 03:04:05.678901\tt\t9223372036854775807\n"
SCHEMA = fastavro.parse_schema({
    "type": "record", "name": "t", "fields": [
        {"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"]},
        {"name": "at", "type": ["null", "long"]},
        {"name": "ok", "type": ["null", "boolean"]}, {"name": "big", "type": ["null", "long"]},
        {"name": "unknown", "type": ["null", "string"], "default": None},
    ],
})  # fmt: skip


def avro(*records: dict[str, Any], codec: str = "deflate") -> bytes:
    file = io.BytesIO()
    fastavro.writer(file, SCHEMA, records, codec=codec)
    return file.getvalue()


async def copy(
    warehouse: Warehouse, options: str, *files: bytes, columns: str = COLUMNS, select: str = "id, name, at::text, ok, big",
    **manifest: Any,
) -> list[tuple[Any, ...]]:  # fmt: skip
    """The table's rows after a COPY of `files`."""
    urls = [await warehouse.put_file(f"f{n}", body) for n, body in enumerate(files)]
    url = await warehouse.put_manifest("m", *urls, **manifest)
    async with await connect(warehouse.settings.warehouse_url) as connection:
        await connection.execute(TABLE)
        await connection.execute(f"COPY t {columns} FROM '{url}' IAM_ROLE default MANIFEST {options}".encode())
        (count,) = (await (await connection.execute("SELECT pg_last_copy_count()")).fetchall())[0]
        rows = await (await connection.execute(f"SELECT {select} FROM t ORDER BY id".encode())).fetchall()
        assert count == len(rows)
        return rows


async def failure(
    warehouse: Warehouse, options: str, *files: bytes, **more: Any
) -> tuple[psycopg.Error, list[tuple[Any, ...]]]:
    """How a COPY fails, and what the load-error table says of it although everything was rolled back."""
    with pytest.raises(psycopg.Error) as caught:
        await copy(warehouse, options, *files, **more)
    entries = await warehouse.query(
        "SELECT split_part(file_name, '/', 4), line_number, column_name, error_code, error_message "
        "FROM sys_load_error_detail"
    )
    assert await warehouse.query("SELECT to_regclass('public.t')") == [(None,)]
    return caught.value, entries


ANN = (1, "ann", "2026-01-02 03:04:05.678901", True, 2**63 - 1)


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ("", ROW), ("GZIP", gzip.compress(ROW)), ("BZIP2", bz2.compress(ROW)), ("ZSTD", zstandard.compress(ROW)),
        ("GZIP", gzip.compress(ROW[:9]) + gzip.compress(ROW[9:])),
        ("ZSTD", zstandard.compress(ROW[:9]) + zstandard.compress(ROW[9:])),
        ("STATUPDATE OFF COMPUPDATE OFF MAXERROR 0 REGION 'us-east-1'", ROW), ("", ROW.rstrip(b"\n")),
    ],
    ids=["none", "gzip", "bzip2", "zstd", "two gzip members", "two zstd frames", "more options", "no last newline"],
)  # fmt: skip
async def test_tsv_of_each_compression(warehouse: Warehouse, options: str, body: bytes) -> None:
    assert await copy(warehouse, f"{CSV} {options}", body) == [ANN]


@pytest.mark.parametrize("codec", ["null", "deflate"])
async def test_avro_maps_names_and_counts_milliseconds(warehouse: Warehouse, codec: str) -> None:
    records = [
        {"id": 1, "name": "tab\t\"q\"", "at": 1_767_323_045_678, "ok": True, "big": -(2**63)},
        {"id": 2, "name": None, "at": None, "ok": None, "big": None}, {"id": 3, "name": "", "at": 0, "ok": False, "big": 0},
    ]  # fmt: skip
    rows = await copy(warehouse, "FORMAT AS AVRO 'auto' TIMEFORMAT 'epochmillisecs'", avro(*records, codec=codec))
    assert rows == [
        (1, "tab\t\"q\"", "2026-01-02 03:04:05.678", True, -(2**63)), (2, None, None, None, None),
        (3, "", "1970-01-01 00:00:00", False, 0),
    ]  # fmt: skip


async def test_files_are_read_each_for_itself(warehouse: Warehouse) -> None:
    rows = await copy(warehouse, CSV, b'1\t"a\r\nb"\t\t\t', b"2\tb\t\t\t\n", b"", b"3\tc\t\t\t\n")
    assert [row[:2] for row in rows] == [(1, "a\r\nb"), (2, "b"), (3, "c")]
    with pytest.raises(psycopg.Error):
        await copy(warehouse, CSV, b'1\t"open\t\t\t\n', b'2\tclose"\t\t\t\n')


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (r"EMPTYASNULL NULL AS '\0'", [r"\N", None, None, " "]),
        (r"NULL AS '\0'", [r"\N", "", "", " "]),
        ("EMPTYASNULL", [None, None, None, " "]),
        ("", [None, "", "", " "]),
        ("NULL AS ''", [r"\N", None, None, " "]),
        (r"EMPTYASNULL BLANKSASNULL NULL AS '\0'", [r"\N", None, None, None]),
    ],
)
async def test_what_is_null(warehouse: Warehouse, options: str, expected: list[str | None]) -> None:
    body = b'1\t\\N\t\t\t\n2\t\t\t\t\n3\t""\t\t\t\n4\t \t\t\t\n'
    rows = await copy(warehouse, rf"CSV DELIMITER '\t' {options}", body)
    assert [row[1] for row in rows] == expected
    assert {row[4] for row in rows} == {None}


async def test_defaults_fill_what_is_not_listed_and_keys_are_not_enforced(warehouse: Warehouse) -> None:
    rows = await copy(warehouse, CSV, ROW + ROW, select="id, made IS NOT NULL")
    assert rows == [(1, True), (1, True)]


@pytest.mark.parametrize(
    ("body", "line", "column", "code"),
    [
        (ROW + b"2\t" + b"x" * 9 + b"\t\t\t\n", 2, "name", 1204),
        (ROW + "2\tééééé\t\t\t\n".encode(), 2, "name", 1204),
        (b"99999999999\tx\t\t\t\n", 1, "id", 1207),
        (b"1\tx\tyesterday noon\t\t\n", 1, "at", 1207),
        (b"1\tx\t\t\t9223372036854775808\n", 1, "big", 1207),
        (b"1\tx\t\t\n", 1, "", 1207),
        (b"1\tx\t\t\t\t\n", 1, "", 1207),
        (b"1\t\xff\t\t\t\n", 1, "", 1207),
        (b"\tx\t\t\t\n", 1, "id", 1207),
    ],
)
async def test_bad_rows_fail_the_load_and_are_named(
    warehouse: Warehouse, body: bytes, line: int, column: str, code: int
) -> None:
    error, entries = await failure(warehouse, CSV, ROW, body)
    assert error.sqlstate == "XX000"
    assert "Load into table 't' failed.  Check 'sys_load_error_detail'" in str(error)
    assert [entry[:4] for entry in entries] == [("f1", line, column, code)]


async def test_avro_faults_are_named(warehouse: Warehouse) -> None:
    option = "AVRO 'auto' TIMEFORMAT 'epochmillisecs'"
    _, entries = await failure(warehouse, option, b"no avro")
    assert entries[0][:2] == ("f0", 0)
    _, entries = await failure(warehouse, option, avro({"id": 1, "name": "x", "at": 2**62, "ok": None, "big": None}))
    assert entries[1][1:4] == (1, "at", 1206)


@pytest.mark.parametrize("body", [b"junk", zstandard.compress(ROW * 50)[:-5]])
async def test_a_file_that_does_not_decompress_fails_the_load(warehouse: Warehouse, body: bytes) -> None:
    error, entries = await failure(warehouse, CSV + " ZSTD", body)
    assert (error.sqlstate, entries) == ("XX000", [])


async def test_manifest_mandatory_and_length(warehouse: Warehouse) -> None:
    here = await warehouse.put_file("here", ROW)
    gone = f"s3://{warehouse.store.bucket}/gone"
    async with await connect(warehouse.settings.warehouse_url) as connection:
        await connection.execute(TABLE)
        await connection.commit()
        for more, sqlstate in (({}, "XX000"), ({"meta": {"content_length": 5}}, "XX000")):
            urls = [here] if more else [here, gone]
            url = await warehouse.put_manifest("m", *urls, **more)
            with pytest.raises(psycopg.Error) as caught:
                await connection.execute(f"COPY t {COLUMNS} FROM '{url}' IAM_ROLE default MANIFEST {CSV}".encode())
            assert caught.value.sqlstate == sqlstate
            await connection.rollback()
        url = await warehouse.put_manifest("m", here, gone, mandatory=False)
        notices: list[str] = []
        connection.add_notice_handler(lambda diag: notices.append(diag.message_primary or ""))
        cursor = await connection.execute(f"COPY t {COLUMNS} FROM '{url}' IAM_ROLE default MANIFEST {CSV}".encode())
        assert cursor.statusmessage == "COPY"
        assert notices == ["Load into table 't' completed, 1 record(s) loaded successfully."]
        with pytest.raises(psycopg.Error):
            await connection.execute(f"COPY t {COLUMNS} FROM '{gone}' IAM_ROLE default MANIFEST {CSV}".encode())


@pytest.mark.parametrize(
    "options",
    [
        "CSV MAXERROR 5", "CSV IGNOREHEADER 1", "CSV ACCEPTINVCHARS", "CSV ACCESS_KEY_ID 'a' SECRET_ACCESS_KEY 'b'",
        "JSON 'auto'",
        "CSV DELIMITER '||'", "CSV TIMEFORMAT 'DD.MM.YYYY'", "AVRO 'auto' GZIP", "AVRO 's3://paths'", "",
        "CSV NULL 'x'", "CSV FILLRECORD", r"AVRO 'auto' NULL AS '\0'", "AVRO 'auto' EMPTYASNULL",
        "AVRO 'auto' BLANKSASNULL",
    ],
)  # fmt: skip
async def test_options_that_are_not_known_are_refused(warehouse: Warehouse, options: str) -> None:
    with pytest.raises(psycopg.errors.SyntaxError):
        await copy(warehouse, options, ROW)


async def test_copy_must_be_one_literal_statement_with_role_and_manifest(warehouse: Warehouse) -> None:
    source = "FROM 's3://b/m'"
    refused: list[tuple[str, Any]] = [
        (f"COPY t {source} CSV MANIFEST", None), (f"COPY t {source} IAM_ROLE default CSV", None),
        (f"SELECT 1; COPY t {source} IAM_ROLE default CSV MANIFEST", None),
        ("COPY t FROM %s IAM_ROLE default CSV MANIFEST", ("s3://b/m",)),
    ]  # fmt: skip
    async with await connect(warehouse.settings.warehouse_url) as connection:
        for text, parameters in refused:
            with pytest.raises(psycopg.errors.SyntaxError):
                await psycopg.AsyncCursor(connection).execute(text.encode(), parameters)
            with pytest.raises(psycopg.errors.InFailedSqlTransaction):
                await connection.execute("SELECT 1")
            await connection.rollback()


async def test_a_copy_outside_a_transaction_commits_or_leaves_nothing(warehouse: Warehouse) -> None:
    good, bad = await warehouse.put_file("good", ROW), await warehouse.put_file("bad", b"x\n")
    connection = await psycopg.AsyncConnection.connect(warehouse.settings.warehouse_url, autocommit=True)
    async with connection:
        await connection.execute(TABLE)
        for urls, expected in (((good, bad), 0), ((good,), 1)):
            url = await warehouse.put_manifest("m", *urls)
            text = f"COPY t {COLUMNS} FROM '{url}' IAM_ROLE default MANIFEST {CSV}".encode()
            if expected:
                await connection.execute(text)
            else:
                with pytest.raises(psycopg.Error):
                    await connection.execute(text)
            assert await (await connection.execute("SELECT count(*) FROM t")).fetchall() == [(expected,)]


async def test_a_large_file_arrives_whole(warehouse: Warehouse) -> None:
    body = b"".join(b"%d\t%07d\t\t\t%d\n" % (n, n, n * n) for n in range(120_000))
    rows = await copy(warehouse, CSV + " ZSTD", zstandard.compress(body), select="id, big")
    assert len(rows) == 120_000
    assert rows[-1] == (119_999, 119_999**2)
