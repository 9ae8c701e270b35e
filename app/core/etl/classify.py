"""What each line is, as far as it says so itself: malformed, a bot's, or an event for its place (rules J1, J4)."""

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import compress
from typing import Final, NamedTuple

from xxhash import xxh3_128_digest

from app.core.enrich.bots import WEBDRIVER
from app.core.enrich.enrich import NO_ORIGIN, Enricher
from app.core.etl.decode import Decoded

_TIME: Final = struct.Struct(">Q")


class Fate(IntEnum):
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
    None: Fate.MALFORMED,
    "page_view": Fate.FIRST,
    "engagement": Fate.SECOND,
    "ad_impression": Fate.AD_IMPRESSION,
    "ad_click": Fate.AD_CLICK,
    "redirect": Fate.REDIRECT,
}


class Rejection(NamedTuple):
    """What a row of flow `rejected` says of a bot or a malformed line, besides its columns."""

    reason: str
    """What is wrong with the line, or the rule that named the bot."""
    user_agent: str | None
    ip: str | None
    payload: str | None
    """None for a bot: the stored line itself."""


class Judged(NamedTuple):
    """What some lines are, as far as each says so itself; copies are told apart later."""

    fates: list[int]
    agents: Sequence[Sequence[str | None]]
    """Browser, os and device of each line."""
    places: Sequence[Sequence[str | None]]
    """Country, region and city of each line; empty where no address says any."""
    rejections: dict[int, Rejection]
    """Of each bot and malformed line, by its place among these lines."""
    digests: list[bytes]
    """Of each line's event id; of no meaning where the line is malformed."""


def digest_of(text: str) -> bytes:
    """16 bytes that stand for an id in state: XXH3, 128 bits, the same in every version of everything.

    It need not withstand an attacker: whoever knows an id can send it as it is, and nobody gains by the collision of two of
    his own. By chance, two of 10^12 ids share a digest with a probability of 10^-15.
    """
    return xxh3_128_digest(text.encode())


def digests_of(texts: Sequence[str]) -> list[bytes]:
    """`digest_of` each."""
    return list(map(xxh3_128_digest, map(str.encode, texts)))


def pack_time(moment_ms: int) -> bytes:
    """8 bytes that sort like the time."""
    return _TIME.pack(moment_ms)


def unpack_time(value: bytes) -> int:
    """The time in the first 8 bytes of a state value."""
    moment: int = _TIME.unpack_from(value)[0]
    return moment


def judge(lines: Decoded, enricher: Enricher) -> Judged:
    """Tell malformed lines and bots from events for their place."""
    columns = lines.columns
    agent_rules, *agents = zip(*map(enricher.agent, columns["user_agent"]), strict=True)
    origins = list(map(enricher.origin, columns["ip"]))
    networks: Sequence[str | None] = ()
    places: Sequence[Sequence[str | None]] = ()
    if origins.count(NO_ORIGIN) < len(origins):
        networks, *places = zip(*origins, strict=True)
    fates: list[int] = list(map(_OF_TYPE.__getitem__, columns["event_type"]))
    rejections: dict[int, Rejection] = {}
    for n in sorted({*_where(columns["webdriver"]), *_where(agent_rules), *_where(networks)}):
        fates[n] = Fate.BOT
        rule = WEBDRIVER if columns["webdriver"][n] else agent_rules[n] or networks[n] or ""
        rejections[n] = Rejection(rule, columns["user_agent"][n], columns["ip"][n], None)
    if columns["malformed"].count(None) < len(fates):
        for n, reason in enumerate(columns["malformed"]):
            if reason is not None:
                fates[n] = Fate.MALFORMED
                payload = columns["payload"][n] or ""
                rejections[n] = Rejection(reason, columns["user_agent"][n], columns["ip"][n], payload)
    event_ids = columns["event_id"]
    if None in event_ids:
        event_ids = [event_id or "" for event_id in event_ids]
    return Judged(fates, agents, places, rejections, digests_of(event_ids))


def _where(conditions: Sequence[object]) -> Iterator[int]:
    """The places of what is true."""
    return compress(range(len(conditions)), conditions)
