"""The SQL of delivery: what production runs, byte for byte, and what is never let into it."""

import pytest

from app.core.delivery import statements
from app.core.formats.flows import BY_NAME, OUTPUTS
from app.errors import ConfigurationError
from app.local.redshift.copy_statement import DEFAULT_NULL, parse
from app.local.redshift.ddl import rewrite
from app.local.redshift.sql_tokens import statements as parts_of

ROLE = "arn:aws:iam::123456789012:role/instream-copy"


def test_a_copy_is_literal_and_states_everything() -> None:
    flow = BY_NAME["replays"]
    assert statements.copy(flow, "s3://b/loads/1-ab/replays.manifest", ROLE) == (
        'COPY "analytics"."replays" ("txn_id", "batch_id", "block", "attempt") '
        f"FROM 's3://b/loads/1-ab/replays.manifest' IAM_ROLE '{ROLE}' MANIFEST CSV DELIMITER '\\t' ZSTD TIMEFORMAT 'auto' "
        "EMPTYASNULL NULL AS '\\0' MAXERROR 0 COMPUPDATE OFF STATUPDATE OFF", (),
    )  # fmt: skip


@pytest.mark.parametrize("flow", OUTPUTS, ids=lambda flow: flow.name)
def test_every_flows_copy_is_one_that_the_stand_in_knows(flow) -> None:  # type: ignore[no-untyped-def]
    (tokens,) = parts_of(statements.copy(flow, "s3://b/m", "default").text)
    copy = parse(tokens)
    assert (copy.table, copy.columns, copy.iam_role) == (("analytics", flow.name), flow.names, "default")
    of_text = ("\0", True) if copy.format == "csv" else (DEFAULT_NULL, False)
    assert (copy.null_as, copy.empty_as_null, copy.manifest) == (*of_text, True)
    assert (copy.format == "avro") == flow.format.value.endswith("avro")
    assert copy.time_format == ("epochmillisecs" if copy.format == "avro" else "auto")


@pytest.mark.parametrize(
    ("url", "role"),
    [
        ("s3://b/m'; DROP TABLE x --", "default"), ("s3://b/a b", "default"), ("http://b/m", "default"),
        ("s3://b/m", "arn:aws:iam::1:role/x"), ("s3://b/m", "x' CREDENTIALS 'aws_access_key_id=..."), ("s3://b/m", ""),
    ],
)  # fmt: skip
def test_what_does_not_belong_into_sql_is_refused(url: str, role: str) -> None:
    with pytest.raises(ConfigurationError):
        statements.copy(BY_NAME["ledger"], url, role)


def test_names_come_from_the_catalogue() -> None:
    with pytest.raises(ConfigurationError):
        statements.table("users; DROP TABLE users")


def test_redshifts_create_table_becomes_postgresqls() -> None:
    (tokens,) = parts_of(
        "CREATE TABLE IF NOT EXISTS a.t (id BIGINT IDENTITY ENCODE az64 PRIMARY KEY, n VARCHAR(7) ENCODE lzo DEFAULT 'a,b' "
        'DISTKEY, "partition" CHARACTER VARYING(MAX) REFERENCES a.u (id), d DECIMAL(5, 2) UNIQUE, x INT, '
        "CONSTRAINT k PRIMARY KEY (id, x), FOREIGN KEY (x) REFERENCES a.u (id), UNIQUE (n)) "
        "DISTSTYLE KEY COMPOUND SORTKEY (n, id) BACKUP NO"
    )
    assert " ".join(rewrite(tokens).split()) == (
        'CREATE TABLE IF NOT EXISTS a . t ( "id" BIGINT IDENTITY NOT NULL, '
        '"n" VARCHAR(7) DEFAULT \'a,b\' CONSTRAINT "n_bytes" CHECK (octet_length("n") <= 7), '
        '"partition" VARCHAR(65535) CONSTRAINT "partition_bytes" CHECK (octet_length("partition") <= 65535), '
        '"d" DECIMAL ( 5 , 2 ), "x" INT NOT NULL, '
        'CONSTRAINT "t_pkey" CHECK (("id" IS NULL) IS NOT NULL AND ("x" IS NULL) IS NOT NULL), '
        'CONSTRAINT "distkey" CHECK (("n" IS NULL) IS NOT NULL), '
        'CONSTRAINT "sortkey" CHECK (("n" IS NULL) IS NOT NULL AND ("id" IS NULL) IS NOT NULL) )'
    )
