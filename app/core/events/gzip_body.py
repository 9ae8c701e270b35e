"""Bounded decompression of a request's body."""

import zlib
from collections.abc import Callable
from typing import Final

from app.errors import RequestRejected

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GUNZIP_STEP_BYTES: Final = 256 * 1024
_GUNZIP_INPUT_BYTES: Final = 64 * 1024
"""zlib copies the rest of its input at the end of each member and of each step. A small input keeps the copies small."""
MAX_GZIP_MEMBERS: Final = 10_000
"""An empty member is 20 bytes and costs as much as an event."""


def is_gzip(body: bytes) -> bool:
    """Whether a body is compressed: by its first bytes, as proxies unpack bodies and leave the header that says gzip."""
    return body.startswith(_GZIP_MAGIC)


def gunzip(body: bytes, max_bytes: int, take: Callable[[int], None] = lambda _: None) -> bytes:
    """The content of a gzip body (one member or several), never more than `max_bytes` of it in memory.

    Zeros behind the last member are padding, as for gzip(1).

    Args:
        body: the whole compressed body.
        max_bytes: longest content.
        take: called with the size of each piece before the next piece is made; it may raise to stop.

    Raises:
        RequestRejected: 413 for more than `max_bytes` or too many members, 400 for a corrupt or truncated stream.
    """
    pieces: list[bytes] = []
    size = at = members = 0
    view = memoryview(body)
    while at < len(body):
        if members and not body[at] and body.count(0, at) == len(body) - at:
            break
        members += 1
        if members > MAX_GZIP_MEMBERS:
            raise RequestRejected(
                413, "too_complex", f"the body has more than {MAX_GZIP_MEMBERS} gzip members; compress it as one"
            )
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        while not member.eof:
            chunk = view[at : at + _GUNZIP_INPUT_BYTES]
            try:
                piece = member.decompress(chunk, _GUNZIP_STEP_BYTES)
            except zlib.error as exc:
                raise RequestRejected(400, "invalid_gzip", f"the body is not gzip: {exc}") from exc
            at += len(chunk) - len(member.unused_data if member.eof else member.unconsumed_tail)
            if not piece and not member.eof and not chunk:
                raise RequestRejected(400, "invalid_gzip", "the gzip body is truncated")
            size += len(piece)
            if size > max_bytes:
                raise RequestRejected(413, "too_large", f"the body decompresses to more than {max_bytes} bytes")
            if piece:
                take(len(piece))
                pieces.append(piece)
    return b"".join(pieces)
