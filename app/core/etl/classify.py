"""What each line is, as far as it says so itself: malformed, a bot's, or an event for its place (rules J1, J4)."""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import compress
from typing import Final, NamedTuple

from app.core.enrich.bots import WEBDRIVER
from app.core.enrich.enrich import NO_ORIGIN, Enricher
from app.core.etl.decode import Decoded
from app.core.state.encoding import digests_of


class LineKind(IntEnum):
    """Where a line goes."""

    MALFORMED = 0
    DUPLICATE = 1
    BOT = 2
    FIRST = 3
    SECOND = 4
    AD_IMPRESSION = 5
    AD_CLICK = 6
    REDIRECT = 7


_OF_TYPE: Final = {
    None: LineKind.MALFORMED,
    "page_view": LineKind.FIRST,
    "engagement": LineKind.SECOND,
    "ad_impression": LineKind.AD_IMPRESSION,
    "ad_click": LineKind.AD_CLICK,
    "redirect": LineKind.REDIRECT,
}


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

    kinds: list[int]
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
    kinds: list[int] = list(map(_OF_TYPE.__getitem__, columns["event_type"]))
    rejections: dict[int, Rejection] = {}
    for n in sorted({*_where(columns["webdriver"]), *_where(agent_rules), *_where(networks)}):
        kinds[n] = LineKind.BOT
        rule = WEBDRIVER if columns["webdriver"][n] else agent_rules[n] or networks[n] or ""
        rejections[n] = Rejection(rule, columns["user_agent"][n], columns["ip"][n], None)
    if columns["malformed"].count(None) < len(kinds):
        for n, reason in enumerate(columns["malformed"]):
            if reason is not None:
                kinds[n] = LineKind.MALFORMED
                payload = columns["payload"][n] or ""
                rejections[n] = Rejection(reason, columns["user_agent"][n], columns["ip"][n], payload)
    event_ids = columns["event_id"]
    if None in event_ids:
        event_ids = [event_id or "" for event_id in event_ids]
    return ClassifiedLines(kinds, agents, places, rejections, digests_of(event_ids))


def _where(conditions: Sequence[object]) -> Iterator[int]:
    """The places of what is true."""
    return compress(range(len(conditions)), conditions)
