"""Rows of flow `rejected`: bots and malformed lines, kept with the reason (rules J1, J4, J5)."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import polars as pl

from app.core.enrich.enrich import truncated_ip
from app.core.etl.classify import Rejection
from app.core.etl.flow_rows import ROW_SCHEMAS, flow_rows
from app.core.etl.lines import Part
from app.core.events.addresses import without_households
from app.core.events.canonical_json import cut_text, storable_text
from app.core.formats.columns import column
from app.core.formats.flows import MAX_PAYLOAD_BYTES, REJECTED

BOT: Final = "bot"
MALFORMED: Final = "malformed"
_TEXT: Final = pl.String()
LINE_SCHEMA: Final = {
    name: dtype for name, dtype in ROW_SCHEMAS[REJECTED.name].items() if name not in {"user_agent", "ip", "event_type"}
}
"""The columns that come from the lines as they are."""
_IP_FIELD: Final = re.compile(r'("ip"\s*:\s*")([^"\\]*)(")')


def malformed_rows(part: Part) -> pl.DataFrame:
    """A row for each malformed line: its fields that are valid, and its text."""
    return _rows(part, MALFORMED, [rejection.payload or "" for rejection in part.rejections])


def bot_rows(part: Part) -> pl.DataFrame:
    """A row for each bot: the stored line and the rule that named it."""
    return _rows(part, BOT, [storable_text(text.decode(errors="replace")) for text in part.texts()])


def without_address(payload: str, ip: str | None) -> str:
    """`payload` with the address `ip`, and every address that a field named ip holds, truncated (/24, /48)."""
    truncated = truncated_ip(ip)
    if ip and truncated:
        whole = f'"ip":"{ip}"'
        is_only = payload.count('"ip') == 1 and whole in payload  # as nearly every stored line has it
        payload = payload.replace(ip, truncated)
        if is_only:
            return payload
    return _IP_FIELD.sub(lambda field: field[1] + without_households(field[2]) + field[3], payload)


def rejected_values(kind: str, rejections: Sequence[Rejection], payloads: Iterable[str]) -> dict[str, list[str | None]]:
    """The columns of `rejected` that do not come from the lines as they are: column -> a value for each rejection.

    At least one rejection is given.
    """
    reasons, agents, addresses = zip(*((r.reason, r.user_agent, r.ip) for r in rejections), strict=True)
    return {
        "event_type": [rejection.event_type for rejection in rejections],
        "kind": [kind] * len(rejections),
        "reason": _each(lambda reason: cut_text(storable_text(reason), 256), reasons),
        "user_agent": _each(lambda agent: agent and cut_text(agent, 1024), agents),
        "ip": _each(truncated_ip, addresses),
        "payload": [
            cut_text(without_address(payload, ip), MAX_PAYLOAD_BYTES) or None
            for payload, ip in zip(payloads, addresses, strict=True)
        ],
    }


def _each(function: Callable[[Any], str | None], values: Sequence[Any]) -> list[str | None]:
    """What `function` makes of each of `values`, of which few are distinct."""
    known = {value: function(value) for value in set(values)}
    return [known[value] for value in values]


def _rows(part: Part, kind: str, payloads: Sequence[str]) -> pl.DataFrame:
    made = rejected_values(kind, part.rejections, payloads)
    columns = [made_column for name, values in made.items() if (made_column := column(name, values, _TEXT)) is not None]
    return flow_rows(REJECTED, part.frame(LINE_SCHEMA), columns)
