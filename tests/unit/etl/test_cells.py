"""Cells are what the plain reader reads, whatever a block holds; the scanner reads the collector's own lines itself."""

from typing import Any

import pytest

from app.core.etl.cells import KEPT_BYTES, KEPT_LINES, CellReader, Cells
from app.core.etl.decode import read_carefully
from app.core.events.fields import STORED_FIELDS
from app.core.formats.source import AcceptedBlock
from app.errors import NewerFormat
from app.kernels.cells import LEN_MASK
from tests.builders.cells import block_of, columns_of, plain_columns
from tests.builders.source_log import BASE_MS, as_line, event, malformed, second

VALID: list[dict[str, Any]] = [
    event("e1", url="https://x.example/ü", properties='{"a":"\\n"}', webdriver=False), second("e2", dwell_ms=5),
    event("e3", "redirect", view=None, cost_micros=-(2**62)), malformed(payload='{"oops":"\u2028\t', event_id="e4"),
]  # fmt: skip
LINES = [as_line(line) for line in VALID]


def text_of(*lines: bytes | dict[str, Any]) -> bytes:
    return b"".join(as_line(line) + b"\n" for line in lines)


def without(name: str) -> dict[str, Any]:
    return {field: value for field, value in VALID[0].items() if field != name}


ODD = {
    "unknown field": text_of({**VALID[0], "new": 1}),
    "repeated field": text_of(LINES[0][:-1] + b',"url":"again"}'),
    "null": text_of({**VALID[0], "section": None}),
    "space": text_of(LINES[0].replace(b":", b": ", 1)),
    "carriage return": text_of(LINES[0] + b"\r"),
    "float": text_of({**VALID[1], "dwell_ms": 5.0}),
    "beyond 64 bits": text_of({**VALID[1], "dwell_ms": 2**63}),
    "below 64 bits": text_of({**VALID[2], "cost_micros": -(2**63) - 1}),
    "number in a text field": text_of({**VALID[0], "section": 7}),
    "text in a number field": text_of({**VALID[1], "dwell_ms": "7"}),
    "number for a boolean": text_of({**VALID[0], "webdriver": 1}),
    "escaped emoji": text_of(LINES[0].replace(b'"e1"', b'"\\ud83d\\ude80"')),
    "escaped NUL": text_of({**VALID[0], "section": "a\0b"}),
    "backslash and u0000": text_of({**VALID[0], "section": "a\\u0000b"}),
    "lone surrogate": text_of(LINES[0].replace(b'"e1"', b'"\\ud83d"')),
    "raw control character": text_of(LINES[0].replace(b'"e1"', b'"e\x01"')),
    "bad UTF-8": text_of(LINES[0].replace(b'"e1"', b'"\xff"')),
    "surrogate in UTF-8": text_of(LINES[0].replace(b'"e1"', b'"\xed\xa0\x80"')),
    "received before its block": text_of({**VALID[0], "received_at": BASE_MS - 1}),
    "no received_at": text_of(without("received_at")),
    "no event_id": text_of(without("event_id")),
    "no event_type": text_of(without("event_type")),
    "no occurred_at": text_of(without("occurred_at")),
    "no page_view_id": text_of(without("page_view_id")),
    "empty object": b"{}\n",
    "empty line": b"\n",
    "no object": b'[1]\n"x"\nnull\n{"event_id":\n',
    "half a line": text_of(LINES[0][:-9]),
    "two objects in a line": text_of(LINES[0] + LINES[1]),
}


@pytest.mark.parametrize("name", ODD)
def test_a_block_that_is_not_canonical_is_read_by_the_plain_reader(name: str) -> None:
    blocks = [block_of(text, BASE_MS) for text in (text_of(*LINES), ODD[name], text_of(*LINES))]
    reader = CellReader()
    cells = reader.read(blocks)
    assert columns_of(cells) == plain_columns(blocks)
    assert reader.doubts == 1, "the blocks around it are scanned"
    lines_are_found(cells, blocks)


def lines_are_found(cells: Cells, blocks: list[AcceptedBlock]) -> None:
    texts = b"".join(block.text for block in blocks)
    lines = [cells.arena[at:end].tobytes() for at, end in zip(cells.starts[:-1], cells.starts[1:], strict=True)]
    assert lines == texts.splitlines(keepends=True) or lines == [line + b"\n" for line in texts.split(b"\n")[:-1]]
    assert cells.ends[-1] == len(lines) == len(cells.rec)


def test_canonical_lines_are_scanned() -> None:
    blocks = [block_of(text_of(*LINES[:2]), BASE_MS), block_of(text_of(*LINES[2:]), BASE_MS, number=1)]
    reader = CellReader()
    cells = reader.read(blocks)
    assert reader.doubts == 0
    assert columns_of(cells) == plain_columns(blocks)
    assert list(cells.ends) == [2, 4]
    lines_are_found(cells, blocks)


def test_every_stored_field_is_scanned() -> None:
    line = {name: {"string": "t", "boolean": True}.get(kind, BASE_MS) for name, kind in STORED_FIELDS.items()}
    blocks = [block_of(text_of({**line, "event_type": "ad_click"}))]
    reader = CellReader()
    assert columns_of(reader.read(blocks)) == plain_columns(blocks)
    assert reader.doubts == 0


def test_escapes_below_u0080_are_scanned() -> None:
    blocks = [block_of(text_of(LINES[0].replace(b'"e1"', b'"\\u0065\\/\\u001F\\t\\"\\\\u"')))]
    reader = CellReader()
    assert columns_of(reader.read(blocks)) == plain_columns(blocks)
    assert reader.doubts == 0


def test_an_id_of_any_length_is_taken_as_it_is() -> None:
    blocks = [block_of(text_of(event(""), event("e" * 65), event("e" * 5000)))]
    assert columns_of(CellReader().read(blocks)) == plain_columns(blocks)


def test_no_block_at_all() -> None:
    cells = CellReader().read([])
    assert (len(cells.rec), cells.used, list(cells.ends), cells.starts.tolist()) == (0, 0, [], [0])


def test_a_newer_line_stops_the_reader_as_it_stops_the_plain_one() -> None:
    blocks = [block_of(text_of(*LINES, event("e9", "podcast")))]
    with pytest.raises(NewerFormat, match="podcast"):
        CellReader().read(blocks)


def test_a_reader_keeps_nothing_of_its_last_step() -> None:
    reader = CellReader()
    for texts in ([text_of(*LINES * 40)], [ODD["bad UTF-8"]] * 3, [text_of(LINES[2])], [text_of(*LINES), ODD["no object"]]):
        blocks = [block_of(text, BASE_MS, number=n) for n, text in enumerate(texts)]
        assert columns_of(reader.read(blocks)) == plain_columns(blocks)


def test_large_tables_are_given_back() -> None:
    reader = CellReader()
    many = reader.read([block_of(b"\n" * (KEPT_LINES + 1))])
    assert len(many.rec) == KEPT_LINES + 1
    assert many.rec.base is not reader.read([block_of(text_of(*LINES))]).rec.base
    long = reader.read([block_of(text_of(event("e", section="x" * 900_000)), number=n) for n in range(40)])
    assert len(long.arena) > KEPT_BYTES
    assert len(reader.read([block_of(text_of(*LINES))]).arena) < KEPT_BYTES


def test_texts_that_grow_when_they_are_read_have_room() -> None:
    grows = text_of({**event("e"), "n": [1e9] * 500}).replace(b"1000000000.0", b"1e9")  # the properties have it in full
    blocks = [block_of(text, BASE_MS, number=n) for n, text in enumerate([grows * 5, text_of(*LINES), grows * 9])]
    reader = CellReader()
    cells = reader.read(blocks)
    assert cells.used > 3 * sum(len(block.text) for block in blocks), "it grew"
    assert columns_of(cells) == plain_columns(blocks)
    assert reader.doubts == 2


def test_careful_reading_makes_a_line_malformed_that_raises() -> None:
    def rehearse(cells: Cells) -> None:
        assert len(cells.rec) == 1
        if columns_of(cells)["event_id"] == ["e2"]:
            raise ArithmeticError("boom")

    blocks = [block_of(text_of(*LINES), BASE_MS), block_of(text_of(LINES[0]) + b"\xff" * 600_000 + b"\n", BASE_MS)]
    plain = read_carefully(blocks, lambda decoded: rehearse(CellReader().take(decoded))).columns
    cells = CellReader().read_carefully(blocks, rehearse)
    assert columns_of(cells) == {name: list(values) for name, values in plain.items()}
    assert columns_of(cells)["malformed"][1] == "processing: ArithmeticError"


def test_a_text_that_no_cell_can_hold_is_cut_at_a_character() -> None:
    def fail(_: Cells) -> None:
        raise ArithmeticError

    cells = CellReader().read_carefully([block_of(b"\xff" * 600_000 + b"\n")], fail)
    payload = columns_of(cells)["payload"][0]
    assert payload == "\ufffd" * (LEN_MASK // 3)
