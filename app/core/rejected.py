"""Rows of flow `rejected`: bots and malformed lines, kept with the reason (rules J1, J4, J5)."""

import re
from collections.abc import Iterable
from typing import Any, Final

import polars as pl

from app.core.canonical import cut_text, storable_text
from app.core.decode import Lines
from app.core.enrich import truncated_ip
from app.core.flows import MAX_PAYLOAD_BYTES, REJECTED
from app.core.rows import ROW_SCHEMAS

BOT: Final = "bot"
MALFORMED: Final = "malformed"
_READ: Final = ("event_id", "event_type", "user_agent", "ip", "received_at", "batch_id", "line")
_IP_FIELD: Final = re.compile(r'("ip"\s*:\s*")([^"\\]*)(")')
_ADDRESS: Final = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:]+(?:\.\d{1,3}){0,3}")
"""What may be an address inside a text, such as a list of them or one with a port."""


def malformed_rows(part: pl.DataFrame) -> Iterable[dict[str, Any]]:
    """A row for each malformed line: what it says of itself, as far as that is valid, and its text."""
    for row in part.select(*_READ, "malformed", "payload").iter_rows(named=True):
        yield _row(row, MALFORMED, row["malformed"], row["payload"] or "")


def bot_rows(part: pl.DataFrame, rules: list[str], lines: Lines) -> Iterable[dict[str, Any]]:
    """A row for each bot: the stored line and the rule that named it."""
    texts: dict[int, list[bytes]] = {}
    for row, rule in zip(part.select(*_READ, "block").iter_rows(named=True), rules, strict=True):
        block = row["block"]
        if block not in texts:
            texts[block] = lines.texts[block].split(b"\n")
        text = texts[block][row["line"] - lines.blocks[block].header.first_line]
        yield _row(row, BOT, rule, storable_text(text.decode(errors="replace")))


def rejected_frame(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """`rows` as the flow's rows."""
    return pl.DataFrame(list(rows), schema=ROW_SCHEMAS[REJECTED.name], orient="row")


def without_address(payload: str, ip: str | None) -> str:
    """`payload` with the address `ip`, and every address that a field named ip holds, truncated (/24, /48)."""
    truncated = truncated_ip(ip)
    if ip and truncated:
        payload = payload.replace(ip, truncated)
    return _IP_FIELD.sub(lambda field: field[1] + _ADDRESS.sub(_truncate, field[2]) + field[3], payload)


def _truncate(found: re.Match[str]) -> str:
    return truncated_ip(found[0]) or found[0]  # what is no address names nobody, and may be the very fault


def _row(row: dict[str, Any], kind: str, reason: str, payload: str) -> dict[str, Any]:
    user_agent = row["user_agent"]
    return {
        "event_id": row["event_id"],
        "event_type": row["event_type"],
        "kind": kind,
        "reason": cut_text(storable_text(reason), 256),
        "user_agent": cut_text(user_agent, 1024) if user_agent else None,
        "ip": truncated_ip(row["ip"]),
        "payload": cut_text(without_address(payload, row["ip"]), MAX_PAYLOAD_BYTES) or None,
        "received_at": row["received_at"],
        "batch_id": row["batch_id"],
        "line": row["line"],
    }
