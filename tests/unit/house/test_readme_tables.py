"""The README's tables of fields, flows and columns agree with the catalogue; where one does not, the right text is shown."""

import re

import pytest

from app.core.events.fields import FIELDS, Field, integer_check, string_check
from app.core.formats.flows import FLOWS
from app.core.formats.tables import TABLES
from app.sql import views
from tests.worlds import readme_tables
from tests.worlds.documents import ROOT

README = (ROOT / "README.md").read_text()
GENERATED = {
    "fields": readme_tables.fields_table(),
    "flows": readme_tables.flows_table(),
    "columns": readme_tables.columns_table(),
}


@pytest.mark.parametrize("name", GENERATED)
def test_a_table_of_the_readme_is_the_catalogues(name: str) -> None:
    text = GENERATED[name]
    title = text.partition("\n")[0]
    assert README.count(title) == 1, f"the README has no table of {name}, or two: it begins with {title}"
    assert text in README, f"README.md: the table that begins with {title} must read:\n\n{text}"


def test_the_readme_names_every_view_and_no_other() -> None:
    section = README.partition("On top are the views ")[2].partition(":\n")[0]
    assert re.findall(r"`(\w+)`", section) == [view.name for view in views()]


def test_tables_have_what_the_catalogue_has() -> None:
    assert re.findall(r"^\| `(\w+)` \|", GENERATED["flows"], flags=re.MULTILINE) == [flow.name for flow in FLOWS]
    fields = [cells.split(" | ")[0] for cells in GENERATED["fields"].splitlines()[2:]]
    assert [name for cell in fields for name in re.findall(r"`(\w+)`", cell)] == list(FIELDS)
    for table in TABLES:
        row = next(row for row in GENERATED["columns"].splitlines() if row.startswith(f"| `{table.name}`"))
        told = re.findall(r"`(\w+)`", GENERATED["columns"].splitlines()[2].split(" | ")[1]) if "those, and" in row else []
        told += re.findall(r"`(\w+)`", row.split(" | ")[1])
        assert sorted(told) == sorted(table.names)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (string_check(35), "string, at most 35 bytes"),
        (lambda value: None if isinstance(value, str) else "not a string", "string"),
        (integer_check(0, 100), "integer, 0 to 100"),
        (integer_check(1, 1), "integer, 1 to 1"),
        (integer_check(-5, 2**63 - 1), "integer, -5 or more"),
        (integer_check(-(2**63), 2**63 - 1), "integer, 64 bit"),
        (lambda value: None if isinstance(value, bool) else "not a boolean", "boolean"),
    ],
)
def test_a_field_is_told_by_what_it_takes(check: object, words: str) -> None:
    assert readme_tables.type_words("x", Field(check, ("page_view",))) == words  # type: ignore[arg-type]


def test_a_field_for_which_there_are_no_words_is_refused() -> None:
    with pytest.raises(ValueError, match="field x"):
        readme_tables.type_words("x", Field(lambda _: "never right", ("page_view",)))
