"""The scanner takes the canonical form alone, and reads what a plain reader reads; its tables come from any catalogue."""

import json
import random
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.etl.field_table import FIELD, FIELD_TABLE, FieldTable, field_table
from app.kernels import scan as kernels
from app.kernels.cells import LEN_BITS, LEN_MASK, PAD
from app.kernels.scan import BOOLEAN, DOUBT, INTEGER, LONGEST_NAME, TAG, TEXT
from tests.unit.kernels.shapes import arena_of

FIELDS = {
    "id": TEXT,
    "type": TAG,
    "at": INTEGER,
    "driven": BOOLEAN,
    "a_name_of_sixteen": TEXT,
    "a_name_of_sixteeN": TEXT,
    "n" * 31: TEXT,
}
TAGS = ("page", "a_tag_longer_than_16", "a_tag_longer_than_17")
TABLE = field_table(FIELDS, TAGS)
STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u00[0-7][0-9a-fA-F])*"')
VALUES = {
    TEXT: STRING, TAG: STRING, BOOLEAN: re.compile("true|false"), INTEGER: re.compile("0|-?[1-9][0-9]*"),
}  # fmt: skip


def scan(text: bytes, fields: dict[str, int], tags: tuple[str, ...], lines: int) -> list[dict[str, Any]] | None:
    """The fields of each line; None where the text is not of the canonical form."""
    if "\\u0000" in text.decode() or text.count(b"\n") != lines:
        return None
    found = [_line(line, fields, tags) for line in text.decode().split("\n")[:-1]]
    return None if None in found else [line for line in found if line is not None]


def _line(line: str, fields: dict[str, int], tags: tuple[str, ...]) -> dict[str, Any] | None:
    values: dict[str, Any] = {}
    at = 0
    while not values or line[at : at + 1] == ",":
        name = re.compile('[{,]"([^"]*)":').match(line, at)
        if name is None or name[1] in values or name[1] not in fields or (line[at] == "{") != (at == 0):
            return None
        value = VALUES[fields[name[1]]].match(line, name.end())
        if value is None:
            return None
        read = json.loads(value[0])
        if fields[name[1]] == TAG and read not in tags:
            return None
        if fields[name[1]] == INTEGER and not -(2**63) <= read < 2**63:
            return None
        values[name[1]] = read
        at = value.end()
    return values if line[at:] == "}" else None


def scanned(
    text: bytes, fields: dict[str, int], tags: tuple[str, ...], table: FieldTable, lines: int
) -> list[dict[str, Any]] | None:
    before, behind = b'{"id":"', b'"}\n'  # no byte outside counts
    arena = np.concatenate([arena_of(before + text + behind)[:-PAD], np.full(len(text) + PAD, 0x22, np.uint8)])
    start, stop, side = len(before), len(before) + len(text), len(before) + len(text) + len(behind)
    rec, present = np.full((lines + 1, len(fields)), 7, np.int64), np.zeros(lines + 1, np.uint64)
    tag_of, starts = np.full(lines + 1, 9, np.int64), np.full(lines + 1, -7, np.int64)
    end = kernels.scan(arena, start, stop, side, *table, 1, lines, rec, present, tag_of, starts)
    assert arena[:side].tobytes() == before + text + behind, "what is there is not written to"
    if end == DOUBT:
        return None
    assert side <= end <= side + len(text)
    assert starts[1:].tolist() == [start + at for at in _beginnings(text)]
    read = []
    for line in range(1, lines + 1):
        values: dict[str, Any] = {}
        for number, (name, kind) in enumerate(fields.items()):
            if not int(present[line]) >> number & 1:
                continue
            cell = int(rec[line, number])
            piece = arena[cell >> LEN_BITS : (cell >> LEN_BITS) + (cell & LEN_MASK)].tobytes()
            values[name] = piece.decode() if kind in {TEXT, TAG} else bool(cell) if kind == BOOLEAN else cell
        assert tag_of[line] == (tags.index(values["type"]) if "type" in values else -1)
        read.append(values)
    return read


def _beginnings(text: bytes) -> list[int]:
    return [0, *(n + 1 for n, byte in enumerate(text) if byte == 10)][:-1]


def check(text: bytes, lines: int) -> list[dict[str, Any]] | None:
    found = scanned(text, FIELDS, TAGS, TABLE, lines)
    assert found == scan(text, FIELDS, TAGS, lines)
    return found


texts = st.text(st.characters(codec="utf-8"), max_size=70) | st.text('"\\/\b\f\n\r\t\x1f\x01\x7fu0ü', max_size=40)
numbers = st.integers(-(2**64), 2**64) | st.sampled_from([0, -1, 2**63 - 1, 2**63, -(2**63) + 1, -(2**63), 10**18, 10**19])
values = {
    "id": texts, "type": st.sampled_from(TAGS), "at": numbers, "driven": st.booleans(),
    **dict.fromkeys(("a_name_of_sixteen", "a_name_of_sixteeN", "n" * 31), texts),
}  # fmt: skip
lines_of_values = st.lists(st.fixed_dictionaries({}, optional=values), min_size=1, max_size=3)
PIECES = [
    b'"', b"\\", b"\\u0000", b"\\u0041", b"\\u0080", b"\\u005C", b"\\/", b"\\\\u0000", b"\\ud83d\\ude00", b"\\x",
    b"\n", b"\r", b"\t", b" ", b"null", b"true", b"false", b"1.0", b"1e3", b"-", b"-0", b"0", b"01", b"9",
    b"12345678901234567890", b"9223372036854775808", b",", b":", b"{", b"}", b"{}", b"\n{}\n", b'"id":"x",', b',"at":-7',
    b'"type":"page"', b'"type":"pagE"', "\u0080\U0001f680".encode(), b"\x00", b"\x7f", b'"driven":trux', b"x" * 33,
    b'{"id":"a"}\n', b'"' + b"n" * 32 + b'":"x"', b'"":1',
]  # fmt: skip


@given(lines_of_values, st.booleans())
def test_lines_as_an_encoder_writes_them(lines: list[dict[str, Any]], is_plain: bool) -> None:
    text = b"".join(json.dumps(line, ensure_ascii=is_plain, separators=(",", ":")).encode() + b"\n" for line in lines)
    found = check(text, len(lines))
    assert found is None or found == lines


@given(lines_of_values, st.data())
def test_damaged_lines(lines: list[dict[str, Any]], data: st.DataObject) -> None:
    text = b"".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for line in lines)
    for _ in range(data.draw(st.integers(1, 3))):
        at, gone = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 3))
        text = text[:at] + data.draw(st.sampled_from(PIECES) | st.just(b"")) + text[at + gone :]
    text = text.decode(errors="ignore").encode()
    text += b"" if text.endswith(b"\n") else b"\n"
    check(text, text.count(b"\n"))


@pytest.mark.parametrize("piece", PIECES, ids=repr)
def test_a_piece_at_every_place_of_a_line(piece: bytes) -> None:
    line = b'{"id":"a\\n\\u001fb","at":-12,"driven":true,"type":"a_tag_longer_than_16","a_name_of_sixteeN":""}\n'
    for at in range(len(line)):
        for text in (line[:at] + piece + line[at:], line[:at] + piece + line[at + len(piece) :]):
            if text.endswith(b"\n"):
                check(text, text.count(b"\n"))


def test_strings_of_every_length_with_an_escape_at_every_place() -> None:
    for size in range(70):
        for at in range(size + 1):
            line = b'{"id":"' + b"x" * at + b'\\"' + b"y" * (size - at) + b'"}\n'
            assert check(line, 1) == [{"id": "x" * at + '"' + "y" * (size - at)}]
        assert check(b'{"id":"' + b"x" * size + b'"}\n', 1) == [{"id": "x" * size}]


def test_the_count_of_lines_must_be_right() -> None:
    line = b'{"id":"a"}\n'
    assert scanned(line * 3, FIELDS, TAGS, TABLE, 3) == [{"id": "a"}] * 3
    assert scanned(line * 3, FIELDS, TAGS, TABLE, 2) is None
    assert scanned(line * 3, FIELDS, TAGS, TABLE, 4) is None


def test_the_longest_text_is_taken_and_a_longer_one_is_not() -> None:
    assert check(b'{"id":"' + b"x" * LEN_MASK + b'"}\n', 1) == [{"id": "x" * LEN_MASK}]
    assert scanned(b'{"id":"' + b"x" * (LEN_MASK + 1) + b'"}\n', FIELDS, TAGS, TABLE, 1) is None


def test_a_table_is_made_for_any_names_that_fit() -> None:
    chance = random.Random(5)
    for count in (1, 10, 64):
        names = {"".join(chance.choices("abcdef_", k=chance.randrange(1, 32))) for _ in range(count)}
        fields = dict.fromkeys(names, INTEGER)
        line = {name: chance.randrange(-9, 9) for name in names}
        text = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        assert scanned(text, fields, (), field_table(fields, ("t",)), 1) == [line]
    with pytest.raises(ValueError, match="65 stored fields"):
        field_table({f"n{n}": TEXT for n in range(65)}, ("t",))
    with pytest.raises(ValueError, match="more than 31 bytes"):
        field_table({"n" * (LONGEST_NAME + 1): TEXT}, ("t",))


def test_the_product_s_table_has_every_stored_field() -> None:
    assert sorted(FIELD_TABLE.slots[FIELD_TABLE.slots >= 0].tolist()) == sorted(FIELD.values())


def are_complete(lines: list[dict[str, Any]]) -> bool:
    return all(
        line.get("at", -1) >= 5 and ("id" in line or (line.get("type") == 1) or (line.get("type") == 0 and "driven" in line))
        for line in lines
    )


lines_of_facts = st.lists(
    st.fixed_dictionaries(
        {}, optional={"id": st.just(0), "type": st.sampled_from([0, 1]), "at": st.integers(3, 7), "driven": st.just(1)}
    ),
    max_size=4,
)  # fmt: skip


@given(lines_of_facts)
def test_complete_lines(lines: list[dict[str, int]]) -> None:
    rec, present = np.full((len(lines) + 1, len(FIELDS)), 9, np.int64), np.zeros(len(lines) + 1, np.uint64)
    types = np.full(len(lines) + 1, -1, np.int64)
    names = list(FIELDS)
    for n, line in enumerate(lines, 1):
        types[n] = line.get("type", -1)
        for name, value in line.items():
            present[n] |= np.uint64(1 << names.index(name))
            rec[n, names.index(name)] = value
    required = np.array([1 << names.index("driven"), 0], np.uint64)
    found = kernels.are_complete(
        rec, present, types, 1, len(rec), required, names.index("id"), names.index("at"), 5
    )  # fmt: skip
    assert found == are_complete(lines)
