"""The README's tables of fields, flows and columns, made from the catalogue.

Each field's check is tried with values: a table made from a description of the check could differ from the check.
"""

import string
from collections.abc import Callable, Iterable
from itertools import groupby

from app.core.delivery.schema import type_of
from app.core.events.fields import EVENT_TYPES, FIELDS, INT64, MAX_TIME_MS, MIN_TIME_MS, TYPES, Check, Field
from app.core.formats.flows import FLOWS, MAX_PROPERTIES_BYTES, OUTPUTS, Flow, Format
from app.core.formats.tables import LOADED_AT, TABLES, Column

FORMAT_WORDS = {
    Format.TSV_ZSTD: "TSV, zstd",
    Format.TSV_GZIP: "TSV, gzip",
    Format.TSV_BZIP2: "TSV, bzip2",
    Format.AVRO_DEFLATE: "Avro, deflate",
    Format.AVRO_NULL: "Avro, not compressed",
}
LONGEST = 128 * 1024
"""If a field takes so long a text, it has no bound of its own."""
ID_CHARACTERS = "A-Za-z0-9_-"
PRINTABLE = string.digits + string.ascii_letters + string.punctuation


def fields_table() -> str:
    """Name, type and event types of each field that a client may send; fields with the same text share a row."""
    said = [(type_words(name, field), _used_by(field), name) for name, field in FIELDS.items()]
    rows = [
        (_listed(name for _, _, name in same), kind, used_by)
        for (kind, used_by), same in groupby(said, key=lambda row: row[:2])
    ]
    return _table(("field", "type", "on"), rows)


def flows_table() -> str:
    """Name, rows and file format of each flow."""
    return _table(("flow", "a row is", "file"), [(f"`{f.name}`", f.about, FORMAT_WORDS[f.format]) for f in FLOWS])


def columns_table() -> str:
    """The columns of each warehouse table; the columns with which every flow of events begins are listed once."""
    of_events = [event.flow for event in TYPES]
    common = list(of_events[0].columns)
    while any(list(flow.columns[: len(common)]) != common for flow in of_events):
        common.pop()
    rows = [(f"all of {_listed(_once(of_events))}", _columns([*common, LOADED_AT]))]
    for table in TABLES:
        is_event = any(flow.name == table.name for flow in of_events)
        own = [column for column in table.columns[len(common) :] if column != LOADED_AT] if is_event else table.columns
        rows.append((f"`{table.name}`", ("those, and " if is_event else "") + _columns(own)))
    return _table(("table", "columns"), rows)


def _once(flows: Iterable[Flow]) -> list[str]:
    return [flow.name for flow in OUTPUTS if flow in set(flows)]


def _columns(columns: Iterable[Column]) -> str:
    """Columns by type, in the table's order."""
    said = [(type_of(column) + (" NOT NULL" if column.required else ""), f"`{column.name}`") for column in columns]
    return "; ".join(f"{', '.join(name for _, name in same)} {kind}" for kind, same in groupby(said, key=lambda one: one[0]))


def type_words(name: str, field: Field) -> str:
    """The values that the field takes, in words."""
    check = field.check
    if _takes(check, True):
        return "boolean"
    if _takes(check, {}):
        return f"object, at most {MAX_PROPERTIES_BYTES // 1024} KiB as JSON"
    if all(_takes(check, event_type) for event_type in EVENT_TYPES) and not _takes(check, "x"):
        return f"one of {_listed(EVENT_TYPES)}"
    return _text(check) or _integer(name, check)


def _text(check: Check) -> str:
    if (longest := _last(lambda length: _takes(check, "a" * length), 0, LONGEST)) > 0:
        if all(_takes(check, character) for character in PRINTABLE):
            return "string" if longest == LONGEST else f"string, at most {longest} bytes"
        if {character for character in PRINTABLE if _takes(check, character)} == set(
            string.digits + string.ascii_letters + "_-"
        ):
            return f"1 to {longest} of `{ID_CHARACTERS}`"
    codes = {character for character in PRINTABLE if _takes(check, character * 3)}
    return "three letters, a code of ISO 4217" if codes == set(string.ascii_letters) else ""


def _integer(name: str, check: Check) -> str:
    inside = next((n for n in (0, 1, MIN_TIME_MS) if _takes(check, n)), None)
    if inside is None:
        raise ValueError(f"field {name} takes nothing that this table has words for: tell it in {__name__}")
    high = _last(lambda n: _takes(check, n), inside, INT64[1])
    low = -_last(lambda n: _takes(check, -n), -inside, -INT64[0])
    match low, high:
        case (low, high) if (low, high) == INT64:
            return "integer, 64 bit"
        case (low, high) if (low, high) == (MIN_TIME_MS, MAX_TIME_MS - 1):
            return "integer, ms since the epoch, years 2000 to 2100"
        case (_, high) if high == INT64[1]:
            return f"integer, {low} or more"
    return f"integer, {low} to {high}"


def _takes(check: Check, value: object) -> bool:
    return check(value) is None


def _last(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The greatest number from `low` to `high` for which `holds`, given that it does for `low` and up to some number."""
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _used_by(field: Field) -> str:
    """The event types that use a field, and which of them require it."""
    users = "all" if set(field.used_by) == set(EVENT_TYPES) else ", ".join(field.used_by)
    missing = [event_type for event_type in field.used_by if event_type not in field.required_by]
    if not field.required_by:
        return users
    return f"{users}; required" if not missing else f"{users}; required, but not on {', '.join(missing)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
