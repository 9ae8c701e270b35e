"""Messages of the PostgreSQL protocol, version 3: reading, splitting, building.

Source: PostgreSQL documentation, "Frontend/Backend Protocol". A message is a type byte, a big-endian length that counts
itself and the body; the first message of a connection has no type byte.
"""

import asyncio
import struct
from collections.abc import Iterable
from typing import Final

SSL_REQUEST: Final = 80877103
GSS_REQUEST: Final = 80877104
CANCEL_REQUEST: Final = 80877102
_MAX_STARTUP_BYTES: Final = 10_000
_LENGTH: Final = struct.Struct(">I")

QUERY: Final = ord("Q")
PARSE: Final = ord("P")
SYNC: Final = ord("S")
FUNCTION_CALL: Final = ord("F")
TERMINATE: Final = ord("X")
ERROR: Final = ord("E")
READY: Final = ord("Z")
DATA_ROW: Final = ord("D")
COMMAND_COMPLETE: Final = ord("C")
COPY_IN: Final = ord("G")
KEY_DATA: Final = ord("K")
NOTICE: Final = ord("N")
PARAMETER: Final = ord("S")

Fields = dict[str, str]
"""An error's or notice's fields by their protocol letter: S severity, C SQLSTATE, M message, D detail, W context, ..."""


def message(kind: int, body: bytes = b"") -> bytes:
    """A message of type `kind`."""
    return bytes((kind,)) + _LENGTH.pack(len(body) + 4) + body


def query(sql: str) -> bytes:
    """A simple query."""
    return message(QUERY, sql.encode() + b"\0")


def copy_data(chunk: bytes) -> bytes:
    """A piece of a COPY's input."""
    return message(ord("d"), chunk)


def copy_done() -> bytes:
    """The end of a COPY's input."""
    return message(ord("c"))


def copy_fail(reason: str) -> bytes:
    """The abandonment of a COPY's input."""
    return message(ord("f"), reason.encode() + b"\0")


def ready(status: int) -> bytes:
    """ReadyForQuery with the transaction status I, T or E."""
    return message(READY, bytes((status,)))


def error(fields: Fields, kind: int = ERROR) -> bytes:
    """An ErrorResponse (or, with `kind` NOTICE, a NoticeResponse)."""
    body = b"".join(letter.encode() + text.encode() + b"\0" for letter, text in fields.items())
    return message(kind, body + b"\0")


def error_of(sqlstate: str, text: str, detail: str = "") -> Fields:
    """The fields of an error."""
    fields = {"S": "ERROR", "V": "ERROR", "C": sqlstate, "M": text}
    return fields | {"D": detail} if detail else fields


def notice(text: str) -> bytes:
    """An INFO notice, as Redshift sends after a load."""
    return error({"S": "INFO", "V": "INFO", "C": "00000", "M": text}, NOTICE)


def command_complete(tag: str) -> bytes:
    """The end of one command."""
    return message(COMMAND_COMPLETE, tag.encode() + b"\0")


def fields_of(whole: bytes) -> Fields:
    """The fields of an ErrorResponse."""
    parts = whole[5:].split(b"\0")
    return {part[:1].decode(): part[1:].decode(errors="replace") for part in parts if part}


def row_of(whole: bytes) -> list[str | None]:
    """The values of a DataRow in text format."""
    count = int.from_bytes(whole[5:7], "big")
    values: list[str | None] = []
    at = 7
    for _ in range(count):
        length = struct.unpack_from(">i", whole, at)[0]
        at += 4
        if length < 0:
            values.append(None)
            continue
        values.append(whole[at : at + length].decode())
        at += length
    return values


async def read_startup(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The first message of a connection: its code (a protocol version or a request) and its whole bytes.

    Raises:
        ValueError: no startup message has such a length.
    """
    head = await reader.readexactly(4)
    length = _LENGTH.unpack(head)[0]
    if not 8 <= length <= _MAX_STARTUP_BYTES:
        raise ValueError(f"startup message of {length} bytes")
    body = await reader.readexactly(length - 4)
    return _LENGTH.unpack_from(body)[0], head + body


def parameters(startup: bytes) -> dict[str, str]:
    """The parameters of a startup message: user, database and the rest."""
    parts = startup[8:].split(b"\0")
    return {name.decode(): value.decode() for name, value in zip(parts[0::2], parts[1::2], strict=False) if name}


def with_options(startup: bytes, options: str) -> bytes:
    """The startup message with `options` added to the session's command line options, before the client's own."""
    pairs = parameters(startup)
    pairs["options"] = f"{options} {pairs.get('options', '')}".strip()
    body = startup[4:8] + b"".join(f"{name}\0{value}\0".encode() for name, value in pairs.items()) + b"\0"
    return _LENGTH.pack(len(body) + 4) + body


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """The next message, whole. Raises IncompleteReadError at the end of the stream."""
    head = await reader.readexactly(5)
    return head + await reader.readexactly(_LENGTH.unpack_from(head, 1)[0] - 4)


class Splitter:
    """Cuts a byte stream into whole messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Every message that `data` completes, in order."""
        buffer = self._rest + data
        at, end, messages = 0, len(buffer), []
        while end - at >= 5:
            length = _LENGTH.unpack_from(buffer, at + 1)[0] + 1
            if end - at < length:
                break
            messages.append(buffer[at : at + length])
            at += length
        self._rest = buffer[at:]
        return messages
