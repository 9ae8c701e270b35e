"""Target: the cells of damaged lines are what the plain reader reads of them."""

import json
import zlib
from typing import Final

from app.core.etl.cells import CellReader
from app.core.events.parse import parse_line
from app.core.formats.source import AcceptedBlock
from app.errors import NewerFormat
from app.local.traffic.content import NASTY
from tests.builders.cells import block_of, columns_of, plain_columns
from tests.corpus import values
from tests.rig.fuzz.target import Target, Wrong

BETWEEN: Final = b"\n\n"
"""The end of a block in the bytes of a case; damage makes empty lines of it, too."""
_EXTREMES: Final = (0, -1, 1, 2**63 - 1, -(2**63), 2**53 + 1)
_READER: Final = CellReader()
"""One for all cases, as a partition has it: nothing of a step may be left in the next one."""


def blocks_of(data: bytes) -> list[AcceptedBlock]:
    """Any bytes as blocks, each received before, at, or behind the time of the samples' lines."""
    texts = [text + b"\n" for text in data.removesuffix(b"\n").split(BETWEEN)]
    floors = (0, values.NOW_MS, values.NOW_MS + 1)
    return [block_of(text, floors[zlib.crc32(text) % 3], number=n) for n, text in enumerate(texts)]


def _compare(data: bytes) -> None:
    blocks = blocks_of(data)
    try:
        plain = plain_columns(blocks)
    except NewerFormat:
        try:
            _READER.read(blocks)
        except NewerFormat:
            raise
        raise Wrong("the plain reader finds a newer format") from None
    found = columns_of(_READER.read(blocks))
    if found != plain:
        name = next(name for name in plain if found[name] != plain[name])
        raise Wrong(f"{name}: {found[name]}, and the plain reader reads {plain[name]}")


def _stored() -> list[bytes]:
    """Lines of each type and sender as the collector stores them, with texts and numbers that readers stumble over."""
    lines = []
    for number, text in enumerate(NASTY):
        for kind in ("page_view", "engagement", "ad_click", "redirect"):
            event = {
                "event_id": f"e{number}", "event_type": kind, "page_view_id": "v1", "occurred_at": values.NOW_MS - 5,
                "visitor_id": text, "url": f"https://news.example/{text}", "article_id": text, "dwell_ms": 5,
                "cost_micros": _EXTREMES[number % len(_EXTREMES)], "revenue_micros": -number, "ad_slot": 1,
                "scroll_pct": number, "webdriver": number % 2 == 0, "properties": {text: [text, 1.5]},
            }  # fmt: skip
            sent = json.dumps(event).encode()
            lines.append(parse_line(sent, "server" if number % 3 else "browser", values.NOW_MS, "203.0.113.9", text).data)
        lines.append(parse_line(text.encode(errors="replace") + b"\xff", "browser", values.NOW_MS, None, text).data)
    return lines


_LINES: Final = _stored()
TARGETS = (
    Target(
        "cells", [b"\n".join(_LINES[n : n + 2]) + BETWEEN + _LINES[n + 2] + b"\n" for n in range(len(_LINES) - 2)], _compare,
        (NewerFormat,), weight=2,
    ),
)  # fmt: skip
