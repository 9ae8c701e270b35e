"""From a request's content to its lines: one line for each event. No line is lost or checked.

`application/json` is one object or an array; each element is a line, in its own text. `application/x-ndjson` is NDJSON:
LF separates lines, one trailing CR is dropped, empty lines are skipped. `text/plain`, which is also the type of a body
without a Content-Type, is JSON if the whole body is one object or array, else NDJSON: beacons send what `JSON.stringify`
made. A byte order mark in front of a body is skipped.

The work of a request is bounded by the bytes that the client sent (`WorkLimit`): 16 KB of gzip may hold 16 MiB, and the
public write key is enough to send them.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from app.errors import RequestRejected

JSON_TYPE: Final = "application/json"
NDJSON_TYPE: Final = "application/x-ndjson"
TEXT_TYPE: Final = "text/plain"
_TYPES: Final = (JSON_TYPE, NDJSON_TYPE, TEXT_TYPE)
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LINE: Final = re.compile(rb"[^\r\n][^\n]*|\r[^\n]+")
"""A line that is not empty; the regular expression itself skips "\\r\\n" alone."""
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{},"]', re.DOTALL)
WHITESPACE: Final = b" \t\n\r"
_OPENING: Final = re.compile(rb"[ \t\n\r]*+[{\[]")
COMMAS_PER_LINE: Final = 32
"""If an array has more commas than this for each permitted line, the scanner cuts it, and stops at the limit."""
LEAST_CONTENT_BYTES: Final = 1024 * 1024
MOST_EXPANSION: Final = 64
"""JSON of events shrinks 5 to 30 times."""
LEAST_WORK: Final = 4_000
WORK_PER_BYTE: Final = 3
"""Ten thousand short events with ids in sequence shrink to 5 bytes each: a program that was cut off sends such bodies."""
WORK_PER_LINE: Final = 10
"""A line costs as much as ten values, even if it is one byte: it becomes an event, or a malformed line with its reason."""
WORK_OF_FAULT: Final = 36
"""A line that breaks a rule is read a second time, field by field."""
_TOKENS_PER_UNIT: Final = 1 / 6
_TOKENS_PER_LINE: Final = 200
"""The scanner reads only so many tokens for each permitted line: it is a hundred times slower than the parser."""
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_NEUTRAL: Final = rb"\\u0020"

_array: Final = msgspec.json.Decoder(list[msgspec.Raw])
_value: Final = msgspec.json.Decoder(msgspec.Raw)


class WorkLimit(NamedTuple):
    """The most work that a request may cause, by the bytes that its client sent.

    A unit is one value of JSON, two thirds of a microsecond with all that follows; so 16 KB cost at most 50 ms. An event of
    20 values is 30 units.
    """

    content_bytes: int
    """Longest content after decompression."""
    units: int
    """Most values, with `WORK_PER_LINE` for each line and `WORK_OF_FAULT` for each that breaks a rule."""

    @classmethod
    def of(cls, sent_bytes: int, max_content_bytes: int) -> "WorkLimit":
        """The limit of a body of `sent_bytes`."""
        content_bytes = max(LEAST_CONTENT_BYTES, MOST_EXPANSION * sent_bytes)
        return cls(min(max_content_bytes, content_bytes), LEAST_WORK + WORK_PER_BYTE * sent_bytes)


def count_values(content: bytes) -> int:
    """An upper bound of the values in JSON texts: it also counts commas and brackets inside strings."""
    return content.count(b",") + content.count(b"[") + content.count(b"{")


def media_type(content_type: str) -> str:
    """The type of a Content-Type header without its parameters; that of an empty header is `text/plain`.

    Raises:
        RequestRejected: 415, it is no type that holds events.
    """
    name = content_type.partition(";")[0].strip().lower() or TEXT_TYPE
    if name not in _TYPES:
        raise RequestRejected(415, "unsupported_media_type", f"Content-Type {name!r}; send one of {', '.join(_TYPES)}")
    return name


def split_body(content_type: str, body: bytes, max_lines: int = 10_000, max_units: int | None = None) -> list[bytes]:
    """The lines of a decompressed body, in order, without LF.

    Args:
        content_type: the header's value.
        body: the content.
        max_lines: most lines.
        max_units: `WorkLimit.units`; None for no such limit.

    Raises:
        RequestRejected: 415 for another content type; 400 for a JSON document that cannot be parsed or is neither object
            nor array, or for no line at all; 413 for more than `max_lines`, for more work than `max_units`, or for more
            tokens than the scanner reads.
    """
    name = media_type(content_type)
    body = body.removeprefix(BYTE_ORDER_MARK)
    max_tokens = max_lines * _TOKENS_PER_LINE
    affordable = max_lines
    if max_units is not None:
        affordable = (max_units - count_values(body)) // WORK_PER_LINE
        max_tokens = min(max_tokens, int(max_units * _TOKENS_PER_UNIT))
        if affordable <= 0:
            raise too_complex()
    limit = min(max_lines, affordable)
    is_json = name == JSON_TYPE or (name == TEXT_TYPE and is_document(body))
    lines: list[bytes] = []
    for line in _elements(body, limit, max_tokens) if is_json else _ndjson(body):
        if len(lines) == limit:
            raise _too_many(max_lines, affordable)
        lines.append(line)
    if not lines:
        raise _no_event()
    return lines


def check_count(lines: int, values: int, max_lines: int, max_units: int) -> None:
    """Refuse what `split_body` refuses, for a body of so many lines and values.

    Args:
        lines: the lines; if reading ended early, as many as were read.
        values: `count_values` of the body.
        max_lines: most lines.
        max_units: `WorkLimit.units`.

    Raises:
        RequestRejected: 413 and 400 as `split_body`.
    """
    affordable = (max_units - values) // WORK_PER_LINE
    if affordable <= 0:
        raise too_complex()
    if lines > min(max_lines, affordable):
        raise _too_many(max_lines, affordable)
    if not lines:
        raise _no_event()


def _too_many(max_lines: int, affordable: int) -> RequestRejected:
    """The refusal of a body with more lines than may be, or than the client can afford."""
    if affordable < max_lines:
        return too_complex()
    return RequestRejected(413, "too_many_lines", f"more than {max_lines} events in one request")


def _no_event() -> RequestRejected:
    return RequestRejected(400, "empty", "the request holds no event")


def _ndjson(body: bytes) -> Iterator[bytes]:
    return (match[0].removesuffix(b"\r") for match in _LINE.finditer(body))


def is_document(body: bytes) -> bool:
    """Whether the whole body is one JSON object or array; a text that is nested too deep counts as none.

    A body of many lines costs no more than its first line: if that is a value, the body is no single one.
    """
    opening = _OPENING.match(body)
    if opening is None:
        return False
    start = opening.end() - 1
    end = body.find(b"\n", start)
    is_object = body.startswith(b"{", start)
    if end < 0:
        return not is_object and _is_value(body)  # an object on one line is the same event either way
    if _is_value(body[start:end]):
        return not is_object and not body[end:].strip(WHITESPACE)
    return _is_value(body)


def _is_value(text: bytes) -> bool:
    """Whether `text` is one JSON value."""
    try:
        _require_json(text, deep=False)
    except RequestRejected:
        return False
    return _is_utf8(text)


def too_complex() -> RequestRejected:
    """The refusal of a body that costs more than its length allows."""
    return RequestRejected(
        413, "too_complex", "the body holds too many values or lines for its length; send fewer events in one request"
    )


def _elements(body: bytes, max_lines: int, max_tokens: int) -> Iterator[bytes]:
    """The text of each element of a JSON array, or of the one object."""
    text = body.strip(WHITESPACE)
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
    elif text.count(b",") <= max_lines * COMMAS_PER_LINE and (elements := _cut_fast(text)) is not None:
        yield from elements
    else:
        yield from _cut_exact(text, max_tokens)


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
            raise too_complex()
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
        if depth == 0 or (depth == 1 and mark == b","):
            element = text[start : token.start()].strip(WHITESPACE)
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


def _require_json(text: bytes, *, deep: bool = True) -> None:
    """See that `text` is one JSON value. A text that is nested too deep passes if `deep`; its line says so later."""
    try:
        _value.decode(_SURROGATE.sub(_NEUTRAL, text))
    except RecursionError as exc:
        if not deep:
            raise _unparseable("nested too deep") from exc
    except msgspec.DecodeError as exc:
        raise _unparseable(str(exc)) from exc


def is_json(text: bytes) -> bool:
    """Whether an element of an array may be this text: a JSON value, nested not too deep for the parser."""
    return _is_value(text)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unparseable(detail: str) -> RequestRejected:
    return RequestRejected(400, "invalid_json", f"the body cannot be parsed as JSON: {detail}")
