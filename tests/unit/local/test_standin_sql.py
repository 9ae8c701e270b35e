"""The stand-in refuses SQL and files that it cannot read with an error of SQL, and no session ends by them."""

import io
from collections.abc import Callable

import fastavro
import pytest

from app.local.redshift import alter, ddl
from app.local.redshift.copy_statement import CopyRefused, parse
from app.local.redshift.files import LoadFailed
from app.local.redshift.render import TargetColumn, rendered
from app.local.redshift.sql_tokens import statements

COPY = "COPY t FROM 's3://b/m' IAM_ROLE default MANIFEST"
COLUMNS = [TargetColumn("a", "integer")]


@pytest.mark.parametrize(
    "columns",
    [
        "()", "(a INT,)", "(, a INT)", "(a INT", "(PRIMARY KEY)", "(a VARCHAR()", "(a VARCHAR(x))", "(a TEXT(1, 2))",
        "(a VARCHAR(3)",
    ],
)  # fmt: skip
def test_a_table_without_a_readable_column_list_is_refused(columns: str) -> None:
    (tokens,) = statements(f"CREATE TABLE t {columns}")
    assert ddl.is_create_table(tokens)
    with pytest.raises(ddl.StatementRefused) as caught:
        ddl.rewrite(tokens)
    assert caught.value.sqlstate == "42601"


@pytest.mark.parametrize("change", ["ADD COLUMN a VARCHAR (", "ADD COLUMN a VARCHAR(MAX", "ALTER COLUMN a TYPE VARCHAR(x)"])
def test_an_altered_column_needs_a_readable_length(change: str) -> None:
    (tokens,) = statements(f"ALTER TABLE t {change}")
    with pytest.raises(ddl.StatementRefused):
        alter.rewrite(tokens, alone=True)


@pytest.mark.parametrize(
    "option", ["CSV QUOTE ''", "CSV QUOTE '<>'", r"CSV DELIMITER '\012'", "CSV DELIMITER ''", "CSV QUOTE 'é'"]
)
def test_quote_and_delimiter_are_one_character(option: str) -> None:
    with pytest.raises(CopyRefused, match="single character"):
        parse(statements(f"{COPY} {option}")[0])


def avro(schema: object, codec: str = "deflate") -> bytes:
    file = io.BytesIO()
    fastavro.writer(file, schema, [{"a": 1}, {"a": 2}], codec=codec)
    return file.getvalue()


RECORD = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "long"}]}


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a field of the schema has no type": lambda file: file.replace(b'"type": "long"', b'"tape": "long"'),
    "the block cannot be decompressed": lambda file: file[:-20] + b"\xff" * 4 + file[-16:],
    "the file ends in its head": lambda file: file[:50],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_avro_file_is_a_load_error(damage: Callable[[bytes], bytes]) -> None:
    whole = avro(RECORD)
    copy = parse(statements(f"{COPY} FORMAT AS AVRO 'auto'")[0])
    assert [*rendered(copy, COLUMNS, iter([whole]), "s3://b/f")] == [b"1\n2\n"]
    with pytest.raises(LoadFailed) as caught:
        [*rendered(copy, COLUMNS, iter([damage(whole)]), "s3://b/f")]
    assert caught.value.load_error is not None
    assert caught.value.load_error.err_code == 1225
