"""ALTER TABLE on the stand-in: what Redshift takes is done, and what it refuses is refused with its error."""

import psycopg
import pytest

from app.adapters.warehouse import connect
from tests.worlds.warehouse import Warehouse
from tests.worlds.warehouse_schema import execute

TABLE = (
    "CREATE TABLE public.t (id VARCHAR(8) NOT NULL, n INTEGER, v VARCHAR(4), d VARCHAR(4) DEFAULT 'x', s VARCHAR(4), "
    "k VARCHAR(4), PRIMARY KEY (id)) DISTSTYLE KEY DISTKEY (k) SORTKEY (s)"
)
COLUMNS = (
    "SELECT column_name, data_type, character_maximum_length, is_nullable FROM information_schema.columns "
    "WHERE table_schema = 'public' AND table_name = 't' ORDER BY ordinal_position"
)


@pytest.fixture
async def url(kept_warehouse: Warehouse) -> str:
    """The tables of one test; nothing else of the warehouse is touched."""
    url = kept_warehouse.settings.warehouse_url
    clean = ("DROP TABLE IF EXISTS public.t CASCADE", "DROP TABLE IF EXISTS public.u CASCADE")
    await execute(url, *clean, TABLE, "INSERT INTO public.t VALUES ('a', 1, 'ab', 'c', 's', 'k')")
    return url


async def test_a_column_is_added_and_counts_bytes(url: str) -> None:
    await execute(
        url, 'ALTER TABLE "public"."t" ADD COLUMN "rows" VARCHAR(3) ENCODE lzo', "ALTER TABLE public.t ADD b BOOLEAN",
        "ALTER TABLE public.t ADD COLUMN q BIGINT DEFAULT 7 NOT NULL", "UPDATE public.t SET \"rows\" = 'äb'",
    )  # fmt: skip
    assert (await execute(url, COLUMNS))[-3:] == [
        ("rows", "character varying", 3, "YES"), ("b", "boolean", None, "YES"), ("q", "bigint", None, "NO"),
    ]  # fmt: skip
    assert await execute(url, 'SELECT "rows", b, q FROM public.t') == [("äb", None, 7)]
    with pytest.raises(psycopg.Error, match="value too long for column 'rows'"):
        await execute(url, "UPDATE public.t SET \"rows\" = 'ää'")


async def test_a_column_is_added_inside_a_transaction_and_goes_with_it(url: str) -> None:
    async with await connect(url) as connection:
        await connection.execute("ALTER TABLE public.t ADD COLUMN later INTEGER")
        await connection.execute("UPDATE public.t SET later = 3 WHERE id = %s", ("a",))
        await connection.rollback()
    assert "later" not in [name for name, *_ in await execute(url, COLUMNS)]


@pytest.mark.parametrize("kind", ["VARCHAR(9)", "character varying(9)", "varchar(3)"])
async def test_a_varchar_is_resized_with_its_check(url: str, kind: str) -> None:
    size = int(kind[-2])
    await execute(url, f"ALTER TABLE public.t ALTER COLUMN v TYPE {kind}", f"UPDATE public.t SET v = '{'x' * size}'")
    assert ("v", "character varying", size, "YES") in await execute(url, COLUMNS)
    with pytest.raises(psycopg.Error, match="value too long for column 'v'"):
        await execute(url, f"UPDATE public.t SET v = '{'x' * (size - 1)}ä'")


async def test_a_renamed_column_keeps_its_check_under_its_new_name(url: str) -> None:
    await execute(url, "ALTER TABLE public.t RENAME COLUMN v TO w", "ALTER TABLE public.t RENAME COLUMN n TO m")
    with pytest.raises(psycopg.Error, match="value too long for column 'w'"):
        await execute(url, "UPDATE public.t SET w = 'äää'")
    await execute(url, "ALTER TABLE public.t ALTER COLUMN w TYPE VARCHAR(6)", "UPDATE public.t SET w = 'äää'")


REFUSED = {
    "ADD COLUMN a INTEGER, ADD COLUMN b INTEGER": ("42601", 'near ","'),
    "ADD COLUMN IF NOT EXISTS n INTEGER": ("42601", 'near "NOT"'),
    "ADD COLUMN a INTEGER NOT NULL": ("0A000", "must have a non-null default expression"),
    "ADD COLUMN a INTEGER DEFAULT NULL NOT NULL": ("0A000", "must have a non-null default expression"),
    "ADD COLUMN a INTEGER UNIQUE": ("42601", "does not support UNIQUE"),
    "ADD COLUMN a INTEGER SORTKEY": ("42601", "does not support SORTKEY"),
    "ADD COLUMN n INTEGER": ("42701", "already exists"),
    "ADD CHECK (n > 0)": ("42601", "syntax error"),
    "ALTER COLUMN n TYPE BIGINT": ("0A000", "nothing but the size of a VARCHAR"),
    "ALTER COLUMN n TYPE VARCHAR(20)": ("0A000", "it is no VARCHAR"),
    "ALTER COLUMN v TYPE VARCHAR(20) USING upper(v)": ("0A000", "nothing but the size of a VARCHAR"),
    "ALTER COLUMN v TYPE VARCHAR(4)": ("0A000", "target column size should be different"),
    "ALTER COLUMN v TYPE VARCHAR(1)": ("0A000", "smaller than the data"),
    "ALTER COLUMN d TYPE VARCHAR(20)": ("0A000", "default"),
    "ALTER COLUMN s TYPE VARCHAR(20)": ("XX000", "found unexpected dependency for column"),
    "ALTER COLUMN k TYPE VARCHAR(20)": ("XX000", "found unexpected dependency for column"),
    "ALTER COLUMN id TYPE VARCHAR(20)": ("0A000", "with a key"),
    "ALTER COLUMN no TYPE VARCHAR(20)": ("42703", "does not exist"),
    "ALTER COLUMN v SET NOT NULL": ("0A000", "not supported"),
    "ALTER COLUMN v DROP DEFAULT": ("0A000", "not supported"),
    "DROP COLUMN s": ("0A000", "cannot drop sortkey column s"),
    "DROP COLUMN k": ("0A000", "cannot drop distkey column k"),
    "DROP COLUMN": ("42601", "syntax error"),
    "DROP COLUMN n, DROP COLUMN v": ("42601", 'near ","'),
    "RENAME COLUMN n": ("42601", "syntax error"),
    "ENABLE TRIGGER ALL": ("42601", 'near "ENABLE"'),
}


@pytest.mark.parametrize("action", REFUSED)
async def test_what_redshift_refuses_is_refused_and_changes_nothing(url: str, action: str) -> None:
    sqlstate, text = REFUSED[action]
    before = await execute(url, COLUMNS)
    with pytest.raises(psycopg.Error) as caught:
        await execute(url, f"ALTER TABLE public.t {action}")
    assert (caught.value.sqlstate, text in str(caught.value)) == (sqlstate, True), str(caught.value)
    assert await execute(url, COLUMNS) == before


async def test_a_column_that_a_view_reads_is_not_resized(url: str) -> None:
    await execute(url, "CREATE VIEW public.reader AS SELECT v FROM public.t")
    with pytest.raises(psycopg.Error, match="used by a view"):
        await execute(url, "ALTER TABLE public.t ALTER COLUMN v TYPE VARCHAR(20)")


@pytest.mark.parametrize("before", ["BEGIN", "SELECT 1"])
async def test_a_column_is_not_resized_inside_a_transaction(url: str, before: str) -> None:
    resize = "ALTER TABLE public.t ALTER COLUMN v TYPE VARCHAR(20)"
    with pytest.raises(psycopg.Error, match="cannot run inside a transaction block") as caught:
        await execute(url, *([before, resize] if before == "BEGIN" else [f"{before}; {resize}"]))
    assert caught.value.sqlstate == "25001"


async def test_keys_are_taken_away_and_given_back(url: str) -> None:
    alter = "ALTER TABLE public.t"
    await execute(
        url,
        f"{alter} ALTER SORTKEY NONE", f"{alter} ALTER COLUMN s TYPE VARCHAR(5)", f"{alter} ALTER COMPOUND SORTKEY (n, s)",
        f"{alter} ALTER DISTSTYLE EVEN", f"{alter} ALTER COLUMN k TYPE VARCHAR(5)", f"{alter} ALTER DISTKEY k",
        f"{alter} DROP CONSTRAINT t_pkey", f"{alter} ALTER COLUMN id TYPE VARCHAR(9)", f"{alter} ADD PRIMARY KEY (id)",
        f"{alter} ALTER COLUMN v ENCODE zstd", f"{alter} ALTER ENCODE AUTO",
    )  # fmt: skip
    for column in ("s", "k", "id"):
        with pytest.raises(psycopg.Error):
            await execute(url, f"{alter} ALTER COLUMN {column} TYPE VARCHAR(20)")
    await execute(url, f"{alter} ALTER DISTSTYLE KEY DISTKEY v", f"{alter} DROP COLUMN k", f"{alter} RENAME TO u")
    assert await execute(url, "SELECT id, n, v, s FROM public.u") == [("a", 1, "ab", "s")]


async def test_keys_that_columns_name_themselves_are_known(url: str) -> None:
    await execute(url, "CREATE TABLE public.u (a VARCHAR(2) DISTKEY, b VARCHAR(2) SORTKEY, c VARCHAR(2) PRIMARY KEY)")
    for column in "abc":
        with pytest.raises(psycopg.Error, match=r"dependency|key"):
            await execute(url, f"ALTER TABLE public.u ALTER COLUMN {column} TYPE VARCHAR(20)")
