"""From a request's body to its lines: bounded decompression, then one line for each event. No line is lost or checked.

`application/json` is one object or an array; each element is a line, in its own text. `application/x-ndjson` and
`text/plain` are always NDJSON: LF separates lines, one trailing CR is dropped, empty lines are skipped.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from app.errors import RequestRejected

JSON_TYPE: Final = "application/json"
NDJSON_TYPES: Final = frozenset({"application/x-ndjson", "text/plain"})
_LINE: Final = re.compile(rb"[^\r\n][^\n]*|\r[^\n]+")
"""A line that is not empty; the regular expression itself skips "\\r\\n" alone."""
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{},"]', re.DOTALL)
_WHITESPACE: Final = b" \t\n\r"
_COMMAS_PER_LINE: Final = 32
"""If an array has more commas than this for each permitted line, the scanner cuts it, and stops at the limit."""
_GUNZIP_STEP_BYTES: Final = 256 * 1024

_TOKENS_PER_LINE: Final = 200
"""The scanner reads only so many tokens for each permitted line: it is a hundred times slower than the parser."""
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_NEUTRAL: Final = rb"\\u0020"

_array: Final = msgspec.json.Decoder(list[msgspec.Raw])
_value: Final = msgspec.json.Decoder(msgspec.Raw)


def media_type(content_type: str) -> str:
    """The type of a Content-Type header without its parameters.

    Raises:
        RequestRejected: 415, it is no type that holds events.
    """
    name = content_type.partition(";")[0].strip().lower()
    if name != JSON_TYPE and name not in NDJSON_TYPES:
        allowed = ", ".join((JSON_TYPE, *sorted(NDJSON_TYPES)))
        raise RequestRejected(415, "unsupported_media_type", f"Content-Type {name or '(none)'!r}; send one of {allowed}")
    return name


def split_body(content_type: str, body: bytes, max_lines: int = 10_000) -> list[bytes]:
    """The lines of a decompressed body, in order, without LF.

    Raises:
        RequestRejected: 415 for another content type; 400 for a JSON document that cannot be parsed or is neither object
            nor array, or for no line at all; 413 for more than `max_lines`, or for more tokens than the scanner reads.
    """
    lines: list[bytes] = []
    for line in _elements(body, max_lines) if media_type(content_type) == JSON_TYPE else _ndjson(body):
        if len(lines) == max_lines:
            raise RequestRejected(413, "too_many_lines", f"more than {max_lines} events in one request")
        lines.append(line)
    if not lines:
        raise RequestRejected(400, "empty", "the request holds no event")
    return lines


def _ndjson(body: bytes) -> Iterator[bytes]:
    return (match[0].removesuffix(b"\r") for match in _LINE.finditer(body))


def _elements(body: bytes, max_lines: int) -> Iterator[bytes]:
    """The text of each element of a JSON array, or of the one object."""
    text = body.strip(_WHITESPACE)
    if not _is_utf8(text):
        raise _unparseable("not UTF-8")
    if text.startswith(b"{"):
        _require_json(text)
        yield text
    elif not text:
        return
    elif not text.startswith(b"["):
        _require_json(text)
        raise RequestRejected(400, "not_events", "a JSON body is one object or an array")
    elif text.count(b",") <= max_lines * _COMMAS_PER_LINE and (elements := _cut_fast(text)) is not None:
        yield from elements
    else:
        yield from _cut_exact(text, max_lines * _TOKENS_PER_LINE)


def _cut_fast(text: bytes) -> list[bytes] | None:
    """An array's elements by the parser; None if the array is nested too deep for it.

    Lone surrogates are JSON, but the parser refuses them. So it reads a text of the same length without them.
    """
    neutral = _SURROGATE.sub(_NEUTRAL, text)
    try:
        elements = [bytes(element) for element in _array.decode(neutral)]
    except RecursionError:
        return None
    except msgspec.DecodeError as exc:
        raise _unparseable(str(exc)) from exc
    if neutral == text:
        return elements
    end = 0
    for number, element in enumerate(elements):
        start = neutral.index(element, end + 1)  # between two elements are only white space and one bracket or comma
        end = start + len(element)
        elements[number] = text[start:end]
    return elements


def _cut_exact(text: bytes, max_tokens: int) -> Iterator[bytes]:
    """An array's elements by scanning for its own commas. Each element must be JSON; it may be nested deep."""
    depth, start = 0, 1
    for count, token in enumerate(_TOKEN.finditer(text)):
        mark = token[0]
        if mark == b'"':
            raise _unparseable("a string has no end")
        if count == max_tokens:
            raise RequestRejected(413, "too_complex", "the array holds too many values; send fewer events in one request")
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
        if depth == 0 or (depth == 1 and mark == b","):
            element = text[start : token.start()].strip(_WHITESPACE)
            is_last = depth == 0
            if element or not is_last or start > 1:
                _require_json(element)
                yield element
            start = token.end()
            if is_last:
                if mark != b"]" or start != len(text):
                    raise _unparseable("more follows the array")
                return
    raise _unparseable("the array has no end")


def _require_json(text: bytes) -> None:
    """See that `text` is one JSON value. A text that is nested too deep passes; its line says so later."""
    try:
        _value.decode(_SURROGATE.sub(_NEUTRAL, text))
    except RecursionError:
        return
    except msgspec.DecodeError as exc:
        raise _unparseable(str(exc)) from exc


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unparseable(detail: str) -> RequestRejected:
    return RequestRejected(400, "invalid_json", f"the body cannot be parsed as JSON: {detail}")


def gunzip(body: bytes, max_bytes: int, take: Callable[[int], None] = lambda _: None) -> bytes:
    """The content of a gzip body (one member or several), never more than `max_bytes` of it in memory.

    Args:
        body: the whole compressed body.
        max_bytes: longest content.
        take: called with the size of each piece before the next piece is made; it may raise to stop.

    Raises:
        RequestRejected: 413 for more than `max_bytes`, 400 for a corrupt or truncated stream.
    """
    pieces: list[bytes] = []
    size = 0
    rest = body
    while rest:
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        while not member.eof:
            try:
                piece = member.decompress(rest, _GUNZIP_STEP_BYTES)
            except zlib.error as exc:
                raise RequestRejected(400, "invalid_gzip", f"the body is not gzip: {exc}") from exc
            if not piece and not member.eof and not member.unconsumed_tail:
                raise RequestRejected(400, "invalid_gzip", "the gzip body is truncated")
            size += len(piece)
            if size > max_bytes:
                raise RequestRejected(413, "too_large", f"the body decompresses to more than {max_bytes} bytes")
            take(len(piece))
            pieces.append(piece)
            rest = member.unconsumed_tail
        rest = member.unused_data
    return b"".join(pieces)
