"""Rows of flow `rejected`: bots and malformed lines, kept with the reason (rules J1, J4, J5)."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import polars as pl

from app.core.canonical import cut_text, storable_text
from app.core.enrich import truncated_ip
from app.core.flows import MAX_PAYLOAD_BYTES, REJECTED
from app.core.parts import Part
from app.core.rows import ROW_SCHEMAS

BOT: Final = "bot"
MALFORMED: Final = "malformed"
_IP_FIELD: Final = re.compile(r'("ip"\s*:\s*")([^"\\]*)(")')
_ADDRESS: Final = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:]+(?:\.\d{1,3}){0,3}")
"""What may be an address inside a text, such as a list of them or one with a port."""


def malformed_rows(part: Part) -> pl.DataFrame:
    """A row for each malformed line: what it says of itself, as far as that is valid, and its text."""
    reasons = [event.malformed or "" for event in part.events]
    return _rows(part, MALFORMED, reasons, [event.payload or "" for event in part.events])


def bot_rows(part: Part, rules: Sequence[str]) -> pl.DataFrame:
    """A row for each bot: the stored line and the rule that named it."""
    texts = [storable_text(text.decode(errors="replace")) for text in _texts(part)]
    return _rows(part, BOT, rules, texts)


def without_address(payload: str, ip: str | None) -> str:
    """`payload` with the address `ip`, and every address that a field named ip holds, truncated (/24, /48)."""
    truncated = truncated_ip(ip)
    if ip and truncated:
        whole = f'"ip":"{ip}"'
        is_only = payload.count('"ip') == 1 and whole in payload  # as nearly every stored line has it
        payload = payload.replace(ip, truncated)
        if is_only:
            return payload
    return _IP_FIELD.sub(lambda field: field[1] + _ADDRESS.sub(_truncate, field[2]) + field[3], payload)


def _truncate(found: re.Match[str]) -> str:
    return truncated_ip(found[0]) or found[0]  # what is no address names nobody, and may be the very fault


def _texts(part: Part) -> Iterator[bytes]:
    """Of each line of a part its stored text."""
    start_of_block = 0
    for block, span in enumerate(part.spans):
        text, at, start = part.lines.texts[block], start_of_block, 0
        for n in part.positions[span.start : span.stop]:
            for _ in range(n - at):
                start = text.index(b"\n", start) + 1
            at = n
            yield text[start : text.index(b"\n", start)]
        start_of_block = part.lines.ends[block]


def _rows(part: Part, kind: str, reasons: Iterable[str], payloads: Iterable[str]) -> pl.DataFrame:
    events = part.events
    made: dict[str, list[str | None]] = {
        "kind": [kind] * len(part),
        "reason": [cut_text(storable_text(reason), 256) for reason in reasons],
        "user_agent": [cut_text(event.user_agent, 1024) if event.user_agent else None for event in events],
        "ip": [truncated_ip(event.ip) for event in events],
        "payload": [
            cut_text(without_address(payload, event.ip), MAX_PAYLOAD_BYTES) or None
            for payload, event in zip(payloads, events, strict=True)
        ],
    }
    columns = [pl.Series(name, values, dtype=pl.String) for name, values in made.items()]
    return part.frame(ROW_SCHEMAS[REJECTED.name]).with_columns(columns)
