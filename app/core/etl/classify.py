"""What each line is, as far as it says so itself: malformed, a bot's, or an event for its place (rules J1, J4)."""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import compress
from typing import Final, NamedTuple

from app.core.enrich.bots import WEBDRIVER
from app.core.enrich.enrich import NO_ORIGIN, Enricher
from app.core.etl.decode import Decoded
from app.core.events.fields import TYPES, JoinPart
from app.core.state.encoding import digests_of


class LineKind(IntEnum):
    """What becomes of a line."""

    MALFORMED = 0
    DUPLICATE = 1
    BOT = 2
    FIRST = 3
    SECOND = 4
    EMITTED = 5
    """A row of its type's flow at once: `EMITTED` and every code above it, one for each type of `EMITTED_TYPES`."""


EMITTED_TYPES: Final = tuple(event for event in TYPES if event.part is JoinPart.NONE)
CODES: Final = LineKind.EMITTED + len(EMITTED_TYPES)
"""A line's code is its kind; that of an event which is emitted also tells its type."""
_CODE_OF_PART: Final = {JoinPart.FIRST: LineKind.FIRST, JoinPart.SECOND: LineKind.SECOND}
_CODE_OF_TYPE: Final[dict[str | None, int]] = {
    None: LineKind.MALFORMED,
    **{event.name: int(_CODE_OF_PART[event.part]) for event in TYPES if event.part in _CODE_OF_PART},
    **{event.name: LineKind.EMITTED + n for n, event in enumerate(EMITTED_TYPES)},
}


def kind_of(code: int) -> LineKind:
    """The kind that a line's code says."""
    return LineKind(min(code, LineKind.EMITTED))


class Rejection(NamedTuple):
    """What a row of flow `rejected` says of a bot or a malformed line, besides its columns."""

    reason: str
    """What is wrong with the line, or the rule that named the bot."""
    user_agent: str | None
    ip: str | None
    payload: str | None
    """None for a bot: the stored line itself."""


class ClassifiedLines(NamedTuple):
    """What some lines are, as far as each says so itself; copies are told apart later."""

    codes: list[int]
    agents: Sequence[Sequence[str | None]]
    """Browser, os and device of each line."""
    places: Sequence[Sequence[str | None]]
    """Country, region and city of each line; empty where no address says any."""
    rejections: dict[int, Rejection]
    """Of each bot and malformed line, by its place among these lines."""
    digests: list[bytes]
    """Of each line's event id; of no meaning where the line is malformed."""


def classify_lines(lines: Decoded, enricher: Enricher) -> ClassifiedLines:
    """Tell malformed lines and bots from events for their place."""
    columns = lines.columns
    agent_rules, *agents = zip(*map(enricher.agent, columns["user_agent"]), strict=True)
    origins = list(map(enricher.origin, columns["ip"]))
    networks: Sequence[str | None] = ()
    places: Sequence[Sequence[str | None]] = ()
    if origins.count(NO_ORIGIN) < len(origins):
        networks, *places = zip(*origins, strict=True)
    codes: list[int] = list(map(_CODE_OF_TYPE.__getitem__, columns["event_type"]))
    rejections: dict[int, Rejection] = {}
    for n in sorted({*_where(columns["webdriver"]), *_where(agent_rules), *_where(networks)}):
        codes[n] = LineKind.BOT
        rule = WEBDRIVER if columns["webdriver"][n] else agent_rules[n] or networks[n] or ""
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
    """The places of what is true."""
    return compress(range(len(conditions)), conditions)
