"""JSON as this project reads and writes it: one strict reading of any bytes, one canonical text of any value.

Two readers give the same answer. `decode_fast` takes a text that msgspec reads without doubt, in microseconds. Every other
text goes to `decode_exact`, which is the definition: strict RFC 8259 (no NaN, no Infinity, no byte order mark). U+0000 and
lone surrogates become U+FFFD in every string, keys included. Numbers that are too large for a double or for an integer
conversion keep their digits.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import Any, Final, NoReturn

import msgspec

from app.errors import FormatInvalid

MAX_DEPTH: Final = 128
"""Deepest nesting that is read. It is far from any parser's recursion limit: the answer never depends on the stack."""
MAX_DIGITS: Final = 1000
"""An integer of more digits keeps its text (Python converts at most 4,300)."""

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_ESCAPED_NUL: Final = b"\\u0000"
_UNSTORABLE_ESCAPE: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
"""Only an escape makes such a character: strict JSON holds no U+0000 as it is, and UTF-8 holds no surrogate."""
_decoder: Final = msgspec.json.Decoder()


class Number:
    """A number that no machine type holds; its text is written as it was read."""

    __slots__ = ("is_integer", "text")

    def __init__(self, text: str, *, is_integer: bool) -> None:
        self.text = text
        self.is_integer = is_integer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def _verbatim(value: object) -> msgspec.Raw:
    if isinstance(value, Number):
        return msgspec.Raw(value.text.encode())
    raise NotImplementedError(f"{type(value).__name__} is no JSON value")


_encoder: Final = msgspec.json.Encoder(enc_hook=_verbatim)


def encode(value: object) -> bytes:
    """The canonical text of a decoded value: UTF-8, no spaces, keys in their order, shortest floats."""
    return _encoder.encode(value)


def decode(text: bytes) -> Any:
    """The JSON value in `text`, with strings that can be stored.

    Raises:
        FormatInvalid: `text` is not UTF-8, not JSON or nested too deep; the message is that rule.
    """
    value = decode_fast(text)
    return decode_exact(text) if value is None else value


def decode_fast(text: bytes) -> Any:
    """The answer of `decode_exact`, or None if only `decode_exact` can give it (`null` is such a text)."""
    if _ESCAPED_NUL in text or _may_be_deep(text):
        return None
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def decode_exact(text: bytes) -> Any:
    """The JSON value in `text`, with strings that can be stored.

    Raises:
        FormatInvalid: as `decode`.
    """
    try:
        value = json.loads(text.decode(), parse_int=_read_integer, parse_float=_read_float, parse_constant=_refuse_constant)
    except UnicodeDecodeError as exc:
        raise FormatInvalid("not UTF-8") from exc
    except ValueError as exc:
        raise FormatInvalid("not JSON") from exc
    except RecursionError as exc:
        raise FormatInvalid(f"nested deeper than {MAX_DEPTH}") from exc
    if _may_be_deep(text) and _is_deeper(value, MAX_DEPTH):
        raise FormatInvalid(f"nested deeper than {MAX_DEPTH}")
    return value if _UNSTORABLE_ESCAPE.search(text) is None else _storable(value)


def _read_integer(digits: str) -> int | Number:
    return int(digits) if len(digits) <= MAX_DIGITS else Number(digits, is_integer=True)


def _read_float(text: str) -> float | Number:
    value = float(text)
    return Number(text, is_integer=False) if math.isinf(value) else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _may_be_deep(text: bytes) -> bool:
    """Whether `text` has enough brackets; far cheaper than to look."""
    return text.count(b"{") + text.count(b"[") > MAX_DEPTH


def _is_deeper(value: object, limit: int) -> bool:
    """Whether `value` holds containers inside containers more than `limit` deep."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        level = [inner for outer in level for inner in _children(outer) if isinstance(inner, dict | list)]
    return bool(level)


def _children(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _storable(value: Any) -> Any:
    """`value` with every string, keys included, fit to be stored. If keys become equal, the last one counts."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, dict):
        return {storable_text(key): _storable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_storable(inner) for inner in value]
    return value


def storable_text(text: str) -> str:
    """`text` with U+FFFD for U+0000 and lone surrogates, which neither UTF-8 nor the warehouse can hold."""
    if text.isascii() and "\0" not in text:  # nearly always, and many times as fast
        return text
    return _UNSTORABLE.sub(REPLACEMENT, text)


def utf8_length(text: str) -> int:
    """Length of storable text in UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode())


def cut_text(text: str, max_bytes: int) -> str:
    """The longest start of storable `text` that has at most `max_bytes` UTF-8 bytes; cut at a character."""
    if len(text) * 4 <= max_bytes or utf8_length(text) <= max_bytes:
        return text
    return text.encode()[:max_bytes].decode(errors="ignore")
