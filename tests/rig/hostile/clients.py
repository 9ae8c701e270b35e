"""Clients that send bytes, whole requests or not."""

import asyncio
import base64
import gzip
import json
import random
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from app.core.events.fields import FIELDS
from tests.rig.hostile.collector import KEY, HostileCollector

SMALL: Final = 16 * 1024
MIB: Final = 1024**2


class RawAnswer(NamedTuple):
    """An answer: 0 without one, as the connection was closed."""

    status: int
    headers: dict[str, str]
    body: Any


def request(payload: bytes, content_type: str = "text/plain", *, is_gzip: bool = False) -> bytes:
    """A whole request with the public key."""
    encoding = "Content-Encoding: gzip\r\n" if is_gzip else ""
    head = f"POST /v1/events?key={KEY} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n{encoding}"
    return f"{head}Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n".encode() + payload


def honest(name: str) -> bytes:
    """A request of one event."""
    fields = {"event_id": name, "event_type": "page_view", "page_view_id": name, "occurred_at": 1_750_000_000_000}
    return request(json.dumps(fields).encode())


async def send(collector: HostileCollector, data: bytes) -> RawAnswer:
    """Send bytes on a connection of their own; the answer."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", collector.port)
    except OSError:
        return RawAnswer(0, {}, None)
    try:
        writer.write(data)
        return await read_answer(reader)
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> RawAnswer:
    """The next answer on a connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        payload = await reader.readexactly(int(headers.get("Content-Length", 0)))
    except (OSError, asyncio.IncompleteReadError):
        return RawAnswer(0, {}, None)
    return RawAnswer(int(head[0].split()[1]), headers, json.loads(payload) if payload else None)


async def hold(collector: HostileCollector, count: int, data: bytes = b"") -> list[asyncio.StreamWriter]:
    """Connections that send something and then nothing."""
    writers = []
    for _ in range(count):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", collector.port)
        except OSError:
            break
        writer.write(data)
        writers.append(writer)
    return writers


def let_go(writers: Iterable[asyncio.StreamWriter]) -> None:
    """Close connections."""
    for writer in writers:
        writer.transport.abort()


def _worst(content: bytes, separator: bytes = b"\n", end: bytes = b"") -> bytes:
    """A gzip body of nearly 16 KB: the content, and a string that does not shrink, because more bytes allow more work."""
    noise = base64.b64encode(random.Random(1).randbytes(SMALL))
    for length in range(len(noise), 0, -500):
        body = _packed(content + separator + b'"' + noise[:length] + b'"' + end)
        if len(body) <= SMALL:
            return body
    raise AssertionError("the content itself is longer than 16 KB")


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)


def worst_bodies() -> dict[str, bytes]:
    """Requests with a body of at most 16 KB: those far beyond a limit, and those that are just taken."""
    empty = _packed(b"")
    nul = b'],"b":"\\u0000"}\n'
    time = b'{"event_id":"e","event_type":"ad_click","page_view_id":"p","occurred_at":"2026-11-28T00:00:00Z"}\n'
    plain = time.replace(b'"2026-11-28T00:00:00Z"', b"1764288000000")
    unfit = (
        b'{"event_id":"e","event_type":"redirect","occurred_at":1764288000000,'
        + b",".join(b'"%s":[]' % name.encode() for name, field in FIELDS.items() if not field.required_by)
        + b"}\n"
    )
    floats = b'{"a":[' + b"1e999," * 8000 + b"1]}\n"
    numbers = b'{"a":[' + b"1," * 8000 + b"1" + nul
    objects = b'{"a":[' + b"{}," * 4000 + b"{}" + nul
    deep = b"[" * 1200 + b"]" * 1200
    json_bodies = {
        "gzip of 16 MiB of brackets": _packed(b"[" * (16 * MIB)),
        "gzip of 1 MiB of brackets": _packed(b"[" * MIB),
        "an array that only the scanner cuts": _worst(b"[" + deep + b",[" + b"{}," * 2000 + b"{}]", b",", b"]"),
        "an array of 1,050 empty objects": _worst(b"[" + b"{}," * 1050 + b"{}", b",", b"]"),
    }
    text_bodies = {
        "gzip of 16 MiB of line feeds": _packed(b"\n" * (16 * MIB)),
        "gzip of 1 MiB of line feeds": _packed(b"\n" * MIB),
        "800 empty gzip members": empty * (SMALL // len(empty)),
        "1,100 malformed lines": _worst(b"[\n" * 1100),
        "1,100 lines of an empty object": _worst(b"{}\n" * 1100),
        "1,040 times in ISO 8601": _worst(time * 1040),
        "500 events with every field unfit": _worst(unfit * 500),
        "3,700 events": _worst(plain * 3700),
        "50,000 infinite numbers": _worst(floats * 6 + floats[:12_000] + b"1]}"),
        "48,000 numbers": _worst(numbers * 6),
        "24,000 objects": _worst(objects * 6),
        "1 MiB that is not UTF-8": _worst((b"\xff" * 60_000 + b"\n") * 16),
        "1 MiB of U+0000": _worst((b'{"a":"' + b"\\u0000" * 10_000 + b'"}\n') * 16),
        "lines that are too long": _worst(b"x" * 980_000),
    }
    bodies = {name: request(body, "application/json", is_gzip=True) for name, body in json_bodies.items()}
    bodies |= {name: request(body, is_gzip=True) for name, body in text_bodies.items()}
    return bodies | {"8,000 lines of one byte": request(b"x\n" * (SMALL // 2))}
