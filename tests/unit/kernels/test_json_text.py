"""What the kernels read of a JSON text is what the exact reader reads; of the rest they say doubt."""

import json
import re
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.events.addresses import sender_address
from app.kernels import crc32 as checksums
from app.kernels import field_rules, json_text, json_values
from app.kernels.json_text import DOUBT
from app.kernels.json_values import MOST_DEPTH, MOST_KEYS
from tests.unit.kernels.shapes import arena_of

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
PIECE = st.sampled_from(
    ['"', "\\", "\\n", "\\u00e9", "\\u0022", "\\ud83d\\ude00", "\\ud800", "\\u001f", "\\x", "a", "é", "\n", "\\/"]
)


def crc32(text: bytes) -> int:
    return zlib.crc32(text)


def end_of_integer(text: bytes) -> int:
    found = re.match(rb"-?(?:0|[1-9]\d{0,17})(?!\d)", text)
    return DOUBT if found is None or found[0] == b"-0" else found.end()


def end_of_number(text: bytes) -> int:
    found = re.match(rb"-?\d+(?:\.\d+)?", text)
    if found is None or len(re.sub(rb"\D", b"", found[0])) > (15 if b"." in found[0] else 18):
        return DOUBT
    try:
        value = msgspec.json.decode(found[0])
    except msgspec.DecodeError:
        return DOUBT
    return found.end() if msgspec.json.encode(value) == found[0] and value else found.end() if found[0] == b"0" else DOUBT


def copy_string(text: bytes, inside: int) -> bytes | None:
    """The string at the start of a text, as an encoder writes it; None for doubt."""
    found = re.match(rb'"((?:[^"\\\x00-\x1f]|\\.)*)"', text, re.DOTALL)
    if found is None:
        return None
    try:
        value = json.loads(found[0])
        value.encode()
    except ValueError:
        return None
    escapes = re.findall(rb"\\(?:u(....)|.)", found[0])
    return None if any(units and int(units, 16) < 0x20 for units in escapes) else as_stored(value, inside)


def as_stored(value: object, inside: int) -> bytes:
    text = msgspec.json.encode(value)
    return msgspec.json.encode(text.decode())[1:-1] if inside else text


def copied(text: bytes, inside: int) -> bytes | None:
    target = np.zeros(2 * len(text) + 64, np.uint8)
    at, to = json_text.copy_string(arena_of(text, 0), 0, target, 0, inside)
    return None if at == DOUBT else target[:to].tobytes()


@given(st.binary(max_size=80))
def test_checksums(text):
    assert checksums.crc32(arena_of(text), 0, len(text)) == crc32(text)


@given(st.binary(max_size=40), st.binary(max_size=9), st.binary(max_size=40))
def test_equal_texts_have_equal_signatures(text, before, other):
    signed = json_text.signature(arena_of(text), 0, len(text))
    assert json_text.signature(arena_of(before + text + other), len(before), len(text)) == signed
    assert (json_text.signature(arena_of(other), 0, len(other)) == signed) == (text == other)


@settings(max_examples=300)
@given(st.from_regex(r"-{0,2}[0-9]{0,20}(\.[0-9]{0,16})?[,eE}]", fullmatch=True) | st.floats().map(lambda x: f"{x!r},"))
def test_numbers(text):
    data = text.encode()
    assert json_text.end_of_integer(arena_of(data, 0), 0) == end_of_integer(data)
    found = json_text.end_of_number(arena_of(data, 0), 0)
    assert found in (DOUBT, end_of_number(data))
    if re.fullmatch(r"-?(0|[1-9]\d{0,9})(\.[1-9])?,", text) and float(text[:-1]):
        assert found == len(text) - 1, "usual numbers are no doubt"


@settings(max_examples=300)
@given(ANY_TEXT | st.lists(PIECE, max_size=6).map("".join), st.integers(0, 1), st.booleans())
def test_strings(content, inside, is_escaped):
    text = (json.dumps(content) if is_escaped else f'"{content}"').encode()
    assert copied(text + b",", inside) == copy_string(text + b",", inside)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(-1e3, 1e3).map(lambda x: round(x, 3) + 0.5)
    | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


def value_copied(text: bytes) -> tuple[int, bytes]:
    target, keys, levels = (
        np.zeros(2 * len(text) + 128, np.uint8),
        np.zeros(MOST_KEYS, np.uint64),
        np.zeros(MOST_DEPTH, np.int64),
    )
    questions = np.zeros((8, 4), np.int64)
    at, to, _ = json_values.copy_value(arena_of(text, 0), 0, len(text), target, 0, keys, 0, levels, questions)
    asked = [text[start:end] for _, start, end, _ in questions[1 : questions[0, 0] + 1].tolist()]
    if any(msgspec.json.encode(json.loads(number)) != number for number in asked):
        return DOUBT, b""
    return at, target[:to].tobytes()


@settings(max_examples=300)
@given(JSON, st.sampled_from([(",", ":"), (" , ", "\t: ")]), st.booleans())
def test_values(value, separators, is_escaped):
    text = json.dumps(value, separators=separators, ensure_ascii=is_escaped).encode()
    at, found = value_copied(text)
    assert (at, found) == (len(text), as_stored(value, 1)) or at == DOUBT
    if "\\u00" not in json.dumps(value) and "-0" not in json.dumps(value) and "0.0" not in json.dumps(value):
        assert at != DOUBT or isinstance(value, float)


@pytest.mark.parametrize("text", [
    b'{"a":1,"a":2}', b'{"a":{"b":1,"b":2}}', b'{"a":1,}', b"[1,]", b"[,1]", b"{,}", b"[1 2]", b'{"a" 1}', b'{"a":}',
    b"{1:2}", b"[", b"{", b"]", b"[}", b"tru", b"nul", b"falsy", b"01", b"--1", b"+1", b"1.", b"[" * 17 + b"]" * 17, b"",
    b'{"a":1e5}', b"[" + b"0.1234567890123456," * 8 + b"1]", b'"\\ud800"', b'{"a":1', b"nan",
])  # fmt: skip
def test_what_is_no_value_is_doubt(text):
    assert value_copied(text)[0] == DOUBT


@pytest.mark.parametrize("text", [
    b'{"a":{"b":1},"b":2}', b'[{"a":1},{"a":1}]', b"[" * 16 + b"]" * 16, b"[[],{},[{}]]", b"true", b"[false,null]",
    b'{"experiment_a":1,"experiment_b":2}',
])  # fmt: skip
def test_what_is_a_value_is_copied(text):
    assert value_copied(text) == (len(text), as_stored(json.loads(text), 1))


@settings(max_examples=300)
@given(
    st.ip_addresses().map(str)
    | st.from_regex(r"[0-9a-f:.]{1,20}", fullmatch=True)
    | st.lists(st.sampled_from(["0", "1", "0db8", "db8", "ffff", "10"]), min_size=8, max_size=8).map(":".join)
)
def test_an_address_in_its_one_spelling(text):
    data = text.encode()
    is_sure = field_rules.keeps_rule(arena_of(data, 0), 0, len(data), field_rules.ADDRESS, 0)
    assert not is_sure or sender_address(text) == text
    if re.fullmatch(r"[1-9]\d?(\.[1-9]\d?){3}", text):
        assert is_sure


@given(st.text(st.sampled_from("azAZ09_-/@[`{:\x7fé "), min_size=1, max_size=6))
def test_names_and_letters(text):
    data = text.encode()
    kept = [
        field_rules.keeps_rule(arena_of(data, 0), 0, len(data), rule, 5) for rule in (field_rules.NAME, field_rules.LETTERS)
    ]
    assert kept == [re.fullmatch(r"[A-Za-z0-9_-]{1,5}", text) is not None, re.fullmatch(r"[A-Za-z]{5}", text) is not None]
