"""Values as text: what a sample says of its bytes."""

from typing import Any

import msgspec
import polars as pl
from pyroaring import BitMap


def plain(value: object) -> Any:
    """`value` as JSON holds it: bytes as hexadecimal, a frame as its types and columns (those without a value left out)."""
    return msgspec.json.decode(msgspec.json.encode(_told(value)))


def _told(value: object) -> Any:  # noqa: PLR0911 - a line for each kind of value
    match value:
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case pl.DataFrame():
            held = [column for column in value.iter_columns() if column.null_count() < len(column) or not len(column)]
            return {column.name: [str(column.dtype), *map(_told, column.to_list())] for column in held}
        case BitMap():
            return list(value)
        case msgspec.Raw():
            return _told(bytes(value))
        case msgspec.Struct():
            return {name: _told(getattr(value, name)) for name in value.__struct_fields__ if _is_set(getattr(value, name))}
        case dict():
            return {_told(key): _told(item) for key, item in value.items()}
        case tuple() if hasattr(value, "_asdict"):
            return _told(value._asdict())
        case list() | tuple():
            return [_told(item) for item in value]
        case _:
            return value


def _is_set(value: object) -> bool:
    return value is not msgspec.UNSET
