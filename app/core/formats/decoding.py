"""Reads stored or sent bytes: returns the value that their format promises, or raises one of two errors (rule E10).

    FormatInvalid, or the format's own leaf   the bytes are not of the format that their place promises
    NewerFormat                               a newer version wrote them: the reader waits for its upgrade

Each format's docstring says how it names its version, and how a reader handles an unknown field: it ignores the field if
nothing is lost by that, and refuses the bytes as newer if it would drop something. Older versions lack fields: those have
defaults.
"""

import re
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, NamedTuple, Protocol, TypeVar

import msgspec
import polars as pl
import zstandard
from pyroaring import BitMap

from app.errors import FormatInvalid, InstreamError, NewerFormat

Value = TypeVar("Value")
Value_co = TypeVar("Value_co", covariant=True)

LATEST_MS: Final = 253_402_300_799_999
"""9999-12-31 23:59:59.999 UTC, the last timestamp."""
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""The range of a column of integers."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Moment = Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS)]
"""Milliseconds since the epoch."""

NO_MESSAGE: Final = "there are no bytes"
_UNDECODABLE: Final = (ValueError, RecursionError, OverflowError)
"""Errors of msgspec: its own errors are ValueErrors, and so is the UnicodeDecodeError that it lets through."""
UNREADABLE: Final = (
    ArithmeticError, AttributeError, LookupError, OSError, EOFError, RecursionError, TypeError, ValueError, struct.error,
    zlib.error, zstandard.ZstdError, pl.exceptions.PolarsError, pl.exceptions.PanicException,
)  # fmt: skip
"""Errors of other libraries' readers and of conversions; a panic in polars is no Exception."""
_TAG: Final = re.compile(r"([a-z]{1,32})([1-9][0-9]{0,2})?")
"""A name and, from version 2 on, the version."""


class Decoder(Protocol[Value_co]):
    """A decoder of msgspec, for JSON or msgpack."""

    def decode(self, buf: bytes | memoryview, /) -> Value_co:
        """The value in `buf`."""


def read(
    decoder: Decoder[Value], data: bytes | memoryview | None, what: str, error: type[InstreamError] = FormatInvalid
) -> Value:
    """The value in `data`.

    Args:
        decoder: the format's, with its type.
        data: any bytes; None where a message has no value.
        what: the format and, if known, the place of the bytes; the error begins with it.
        error: the format's own error.

    Raises:
        FormatInvalid: `data` is no such value; this or whatever else `error` is.
    """
    if data is None:
        raise error(f"{what}: {NO_MESSAGE}")
    try:
        return decoder.decode(data)
    except _UNDECODABLE as exc:
        raise error(f"{what} cannot be read: {exc}") from exc


@contextmanager
def reading(what: str, error: type[InstreamError] = FormatInvalid) -> Iterator[None]:
    """Turn an exception of another reader into the format's own error; errors of this project pass.

    Args:
        what: as for `read`.
        error: the format's own error.
    """
    try:
        yield
    except UNREADABLE as exc:
        raise error(f"{what} cannot be read: {type(exc).__name__}: {exc}") from exc


def refuse_newer(what: str, version: int, known: int) -> None:
    """Check that this reader knows a version.

    Raises:
        NewerFormat: the version is beyond `known`.
    """
    if version > known:
        raise NewerFormat(f"{what} of version {version}, this reader knows versions up to {known}")


def refuse_unknown(what: str, found: Collection[str], known: Collection[str]) -> None:
    """Check that this reader knows all found names.

    Raises:
        NewerFormat: a name is unknown, so a newer version wrote the bytes.
    """
    if unknown := [name for name in found if name not in known]:
        raise NewerFormat(f"{what} {', '.join(map(repr, unknown))}: this reader does not know that")


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Add the place of the bytes to the text of a NewerFormat."""
    try:
        yield
    except NewerFormat as exc:
        raise NewerFormat(f"{place}: {exc}") from exc


def read_bitmap(packed: bytes, what: str) -> BitMap:
    """The numbers in a Roaring bitmap; its portable serialisation names its own version.

    Raises:
        FormatInvalid: the bytes are no such bitmap.

    Source: the RoaringFormatSpec, "cookie header".
    """
    with reading(what):
        return BitMap.deserialize(packed)


# --- formats with a field `version`


class _Versioned(msgspec.Struct):
    version: int = 1


_version_in_json: Final = msgspec.json.Decoder(_Versioned)
_version_in_msgpack: Final = msgspec.msgpack.Decoder(_Versioned)


class HasVersion(Protocol):
    """A value that names its version."""

    @property
    def version(self) -> int:
        """1 if the bytes name none."""


Named = TypeVar("Named", bound=HasVersion)


def read_versioned(
    decoder: Decoder[Named], data: bytes | None, what: str, known: int, error: type[InstreamError] = FormatInvalid
) -> Named:
    """The value in `data`, which names its version in a field `version`; without the field it is of version 1.

    A newer value may differ from this reader's in everything but that field.

    Args:
        decoder: the format's, with its type.
        data: any bytes; None where a message has no value.
        what: as for `read`.
        known: the reader's own version.
        error: the format's own error.

    Raises:
        NewerFormat: the version is beyond `known`.
        FormatInvalid: `data` is no such value; this or whatever else `error` is.
    """
    try:
        value = read(decoder, data, what, error)
    except error:
        versions = _version_in_msgpack if isinstance(decoder, msgspec.msgpack.Decoder) else _version_in_json
        if data is not None and (version := _version_in(data, versions)) is not None:
            refuse_newer(what, version, known)
        raise
    refuse_newer(what, value.version, known)
    if value.version < 1:
        raise error(f"{what} of version {value.version}")
    return value


def _version_in(data: bytes, versions: Decoder[_Versioned]) -> int | None:
    try:
        return versions.decode(data).version
    except _UNDECODABLE:
        return None


# --- msgpack arrays: fields without names, behind a tag if a message has several kinds


_FIXARRAY: Final = 0x90
_ARRAY_HEADS: Final = {0xDC: 2, 0xDD: 4}
"""First byte of a longer array -> bytes of the length behind it. Source: MessagePack specification, array format family."""


def array_length(packed: bytes | memoryview) -> int | None:
    """The number of elements of a msgpack array; None if the bytes are no array."""
    first = packed[0] if packed else 0
    if first & 0xF0 == _FIXARRAY:
        return first & 0x0F
    width = _ARRAY_HEADS.get(first)
    return None if width is None or len(packed) <= width else int.from_bytes(packed[1 : 1 + width])


def refuse_longer(what: str, packed: bytes | memoryview, known: int) -> None:
    """Check that a msgpack array has no more elements than this reader knows.

    Raises:
        NewerFormat: it has more.
    """
    length = array_length(packed)
    if length is not None and length > known:
        raise NewerFormat(f"{what} with {length} fields, this reader knows {known}")


_any_array: Final = msgspec.msgpack.Decoder(list[Any])


class Tag(NamedTuple):
    """The tag of an array."""

    name: str
    version: int = 1


def tag_of(packed: bytes) -> Tag | None:
    """The tag with which a msgpack array begins: a name, and the version behind it from version 2 on (`at`, `at2`).

    Returns: None if the bytes are no such array.
    """
    try:
        values = _any_array.decode(packed)
    except _UNDECODABLE:
        return None
    tag = values[0] if values else None
    found = _TAG.fullmatch(tag) if isinstance(tag, str) else None
    return None if found is None else Tag(found[1], int(found[2] or 1))


Tagged = TypeVar("Tagged", bound=msgspec.Struct)


def read_tagged(
    decoder: Decoder[Tagged], data: bytes | None, what: str, known: int, error: type[InstreamError] = FormatInvalid
) -> Tagged:
    """The value in a msgpack array whose tag names its kind and its version.

    Args:
        decoder: the format's, for each of the types that it can be.
        data: any bytes; None where a message has no value.
        what: as for `read`.
        known: the reader's own version.
        error: the format's own error.

    Raises:
        NewerFormat: the version is beyond `known`, or there are more fields than this reader knows.
        FormatInvalid: `data` is no such value; this or whatever else `error` is.
    """
    try:
        value = read(decoder, data, what, error)
    except error:
        if data is not None and (tag := tag_of(data)) is not None:
            refuse_newer(what, tag.version, known)
        raise
    refuse_longer(what, data or b"", 1 + len(value.__struct_fields__))
    return value
