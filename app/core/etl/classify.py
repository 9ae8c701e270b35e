"""The kind of each line, from the line alone: malformed, sent by a bot, or an event (rules J1, J4)."""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import compress
from typing import Final, NamedTuple

from app.core.enrich.bot_agents import EMPTY_USER_AGENT
from app.core.enrich.bots import WEBDRIVER
from app.core.enrich.enrich import NO_ORIGIN, Enricher
from app.core.etl.decode import Decoded
from app.core.events.fields import TYPES, JoinPart
from app.core.state.encoding import digests_of


class LineKind(IntEnum):
    """The kind of a line; it decides where the line goes."""

    MALFORMED = 0
    DUPLICATE = 1
    BOT = 2
    FIRST = 3
    SECOND = 4
    EMITTED = 5
    """An event that becomes a row at once. `EMITTED` and the codes above it stand for the types of `EMITTED_TYPES`."""


EMITTED_TYPES: Final = tuple(event for event in TYPES if event.part is JoinPart.NONE)
CODES: Final = LineKind.EMITTED + len(EMITTED_TYPES)
"""A line's code is its kind; the code of an event that is emitted also tells its type."""
_CODE_OF_PART: Final = {JoinPart.FIRST: LineKind.FIRST, JoinPart.SECOND: LineKind.SECOND}
_CODE_OF_TYPE: Final[dict[str | None, int]] = {
    None: LineKind.MALFORMED,
    **{event.name: int(_CODE_OF_PART[event.part]) for event in TYPES if event.part in _CODE_OF_PART},
    **{event.name: LineKind.EMITTED + n for n, event in enumerate(EMITTED_TYPES)},
}


def kind_of(code: int) -> LineKind:
    """The kind of a line, from its code."""
    return LineKind(min(code, LineKind.EMITTED))


class Rejection(NamedTuple):
    """The extra facts in the row of a bot or a malformed line (flow `rejected`)."""

    reason: str
    """The fault of the line, or the rule that named the bot."""
    user_agent: str | None
    ip: str | None
    payload: str | None
    """None for a bot: its payload is the stored line itself."""


class ClassifiedLines(NamedTuple):
    """The kinds of some lines, from each line alone; duplicates are found later."""

    codes: list[int]
    agents: Sequence[Sequence[str | None]]
    """Browser, os and device of each line."""
    places: Sequence[Sequence[str | None]]
    """Country, region and city of each line; empty if no address has any."""
    rejections: dict[int, Rejection]
    """The rejections of bots and malformed lines, by their places among these lines."""
    digests: list[bytes]
    """The digest of each line's event id; for a malformed line it has no meaning."""


def classify_lines(lines: Decoded, enricher: Enricher) -> ClassifiedLines:
    """Tell malformed lines and bots from events."""
    columns = lines.columns
    agent_rules, *agents, _, _ = zip(*map(enricher.agent, columns["user_agent"]), strict=True)
    origins = list(map(enricher.origin, columns["ip"]))
    networks: Sequence[str | None] = ()
    places: Sequence[Sequence[str | None]] = ()
    if origins.count(NO_ORIGIN) < len(origins):
        networks, *places = zip(*origins, strict=True)
    codes: list[int] = list(map(_CODE_OF_TYPE.__getitem__, columns["event_type"]))
    rejections: dict[int, Rejection] = {}
    for n in sorted({*_where(columns["webdriver"]), *_where(agent_rules), *_where(networks)}):
        agent_rule = agent_rules[n]
        if agent_rule == EMPTY_USER_AGENT and columns["key_kind"][n] == "server":
            agent_rule = None  # the publisher's program does not tell its visitor's agent
        rule = WEBDRIVER if columns["webdriver"][n] else agent_rule or (networks[n] if networks else None)
        if rule is None:
            continue
        codes[n] = LineKind.BOT
        rejections[n] = Rejection(rule, columns["user_agent"][n], columns["ip"][n], None)
    if columns["malformed"].count(None) < len(codes):
        for n, reason in enumerate(columns["malformed"]):
            if reason is not None:
                codes[n] = LineKind.MALFORMED
                payload = columns["payload"][n] or ""
                rejections[n] = Rejection(reason, columns["user_agent"][n], columns["ip"][n], payload)
    event_ids = columns["event_id"]
    if None in event_ids:
        event_ids = [event_id or "" for event_id in event_ids]
    return ClassifiedLines(codes, agents, places, rejections, digests_of(event_ids))


def _where(conditions: Sequence[object]) -> Iterator[int]:
    """The places at which the condition is true."""
    return compress(range(len(conditions)), conditions)
