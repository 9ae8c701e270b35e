"""The kind of each line, from the line alone: malformed, erased, sent by a bot, or an event (rules J1, J4, R7)."""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import compress
from typing import Final, NamedTuple

from app.core.enrich.bot_agents import EMPTY_USER_AGENT
from app.core.enrich.bots import WEBDRIVER
from app.core.enrich.enrich import NO_ORIGIN, Agent, Enricher
from app.core.etl.decode import Decoded
from app.core.events.fields import TYPES, JoinPart
from app.core.formats import tombstone
from app.core.state.encoding import digests_of


class LineKind(IntEnum):
    """The kind of a line; it decides where the line goes."""

    MALFORMED = 0
    ERASED = 1
    """A tombstone: the line was erased from the raw file, and becomes no row."""
    DUPLICATE = 2
    BOT = 3
    FIRST = 4
    SECOND = 5
    EMITTED = 6
    """An event that becomes a row at once. `EMITTED` and the codes above it stand for the types of `EMITTED_TYPES`."""


EMITTED_TYPES: Final = tuple(event for event in TYPES if event.part is JoinPart.NONE)
CODES: Final = LineKind.EMITTED + len(EMITTED_TYPES)
"""A line's code is its kind; the code of an event that is emitted also tells its type."""
_CODE_OF_PART: Final = {JoinPart.FIRST: LineKind.FIRST, JoinPart.SECOND: LineKind.SECOND}
CODE_OF_TYPE: Final[dict[str | None, int]] = {
    None: LineKind.MALFORMED,
    **{event.name: int(_CODE_OF_PART[event.part]) for event in TYPES if event.part in _CODE_OF_PART},
    **{event.name: LineKind.EMITTED + n for n, event in enumerate(EMITTED_TYPES)},
}
"""The code of an event of each type; None stands for a line without a type, which is malformed."""


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
    event_type: str | None


class LineAgents(NamedTuple):
    """The user agents of some lines, each once: the lines are many, and the agents are few."""

    texts: Sequence[str | None]
    facts: Sequence[Agent]
    """For each text, the facts in it."""
    places: Sequence[int]
    """For each line, the place of its user agent in `texts`."""


class ClassifiedLines(NamedTuple):
    """The kinds of some lines, from each line alone; duplicates are found later."""

    codes: list[int]
    agents: "LineAgents"
    places: Sequence[Sequence[str | None]]
    """Country, region and city of each line; empty if no address has any."""
    rejections: dict[int, Rejection]
    """The rejections of bots and malformed lines, by their places among these lines."""
    digests: list[bytes]
    """The digest of each line's event id; for a malformed or erased line it has no meaning."""


def classify_lines(lines: Decoded, enricher: Enricher) -> ClassifiedLines:
    """Tell malformed lines and bots from events."""
    columns = lines.columns
    agents = _agents_of(columns["user_agent"], enricher)
    rules = [agent.bot_rule for agent in agents.facts]
    agent_rules = list(map(rules.__getitem__, agents.places))
    origins = list(map(enricher.origin, columns["ip"]))
    networks: Sequence[str | None] = ()
    places: Sequence[Sequence[str | None]] = ()
    if origins.count(NO_ORIGIN) < len(origins):
        networks, *places = zip(*origins, strict=True)
    codes: list[int] = list(map(CODE_OF_TYPE.__getitem__, columns["event_type"]))
    rejections: dict[int, Rejection] = {}
    for n in sorted({*_where(columns["webdriver"]), *_where(agent_rules), *_where(networks)}):
        agent_rule = agent_rules[n]
        if agent_rule == EMPTY_USER_AGENT and columns["key_kind"][n] == "server":
            agent_rule = None  # the publisher's program does not tell its visitor's agent
        rule = WEBDRIVER if columns["webdriver"][n] else agent_rule or (networks[n] if networks else None)
        if rule is None:
            continue
        codes[n] = LineKind.BOT
        rejections[n] = Rejection(rule, columns["user_agent"][n], columns["ip"][n], None, columns["event_type"][n])
    if columns["malformed"].count(None) < len(codes):
        for n, reason in enumerate(columns["malformed"]):
            if reason == tombstone.REASON:
                codes[n] = LineKind.ERASED
                rejections.pop(n, None)
            elif reason is not None:
                codes[n] = LineKind.MALFORMED
                payload = columns["payload"][n] or ""
                rejections[n] = Rejection(
                    reason, columns["user_agent"][n], columns["ip"][n], payload, columns["event_type"][n]
                )
    event_ids = columns["event_id"]
    if None in event_ids:
        event_ids = [event_id or "" for event_id in event_ids]
    return ClassifiedLines(codes, agents, places, rejections, digests_of(event_ids))


def _agents_of(user_agents: Sequence[str | None], enricher: Enricher) -> LineAgents:
    texts = list(dict.fromkeys(user_agents))
    place_of = dict(zip(texts, range(len(texts)), strict=True))
    return LineAgents(texts, list(map(enricher.agent, texts)), list(map(place_of.__getitem__, user_agents)))


def _where(conditions: Sequence[object]) -> Iterator[int]:
    """The places at which the condition is true."""
    return compress(range(len(conditions)), conditions)
