"""What becomes of each line on arrival: malformed, duplicate, bot, or an event for its place (rules J1, J4, E7)."""

import struct
from bisect import bisect_right
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from xxhash import xxh3_128_digest

from app.core.bots import WEBDRIVER
from app.core.decode import Lines
from app.core.enrich import Agent, Enricher, Origin
from app.core.state import StateReader
from app.core.step_message import Changes

DIGEST_BYTES: Final = 16
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


class Sorted(NamedTuple):
    """The lines of a step by their fate."""

    positions: Sequence[list[int]]
    """Of each fate its lines, ascending: positions in `Lines.events`."""
    agents: Sequence[Agent]
    """Of each line its user agent, read."""
    origins: Sequence[Origin]
    """Of each line its address, read."""
    bot_rules: list[str]
    """Of each line of fate BOT the rule that named it."""
    seen: Changes | None
    """What `seen` learns; None where nothing."""


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


def sort_lines(lines: Lines, state: StateReader, dedup_window_ms: int, enricher: Enricher) -> Sorted:
    """Decide on every line of a step.

    A malformed line is never remembered. The first copy of an event id in the partition counts, whatever it is; a copy that
    comes while the id is remembered at its block's stream time is a duplicate. Bots are remembered like any other.
    """
    events = lines.events
    agents = list(map(enricher.agent, [event.user_agent for event in events]))
    origins = list(map(enricher.origin, [event.ip for event in events]))
    fates: list[int] = [_OF_TYPE[event.event_type] for event in events]
    driven = [event.webdriver for event in events]
    for n, (is_driven, agent, origin) in enumerate(zip(driven, agents, origins, strict=True)):
        if is_driven or agent[0] or origin[0]:  # their `bot_rule`
            fates[n] = Fate.BOT
    for n, reason in enumerate([event.malformed for event in events]):
        if reason is not None:
            fates[n] = Fate.MALFORMED
    copies, seen = _tell_copies(lines, fates, state, dedup_window_ms)
    for n in copies:
        fates[n] = Fate.DUPLICATE
    positions: list[list[int]] = [[] for _ in Fate]
    for n, fate in enumerate(fates):
        positions[fate].append(n)
    rules = [
        WEBDRIVER if events[n].webdriver else agents[n].bot_rule or origins[n].bot_rule or "" for n in positions[Fate.BOT]
    ]
    return Sorted(positions, agents, origins, rules, seen)


def _tell_copies(
    lines: Lines, fates: Sequence[int], state: StateReader, dedup_window_ms: int
) -> tuple[list[int], Changes | None]:
    """The positions of copies; what `seen` learns."""
    valid = [n for n, fate in enumerate(fates) if fate]
    digests = digests_of([lines.events[n].event_id or "" for n in valid])
    held = state.get("seen", digests)
    copies = _find_copies(lines, valid, digests, held, dedup_window_ms)
    fresh = valid
    if copies:
        gone = set(copies)
        digests = [digest for n, digest in zip(valid, digests, strict=True) if n not in gone]
        fresh = [n for n in valid if n not in gone]
    if not fresh:
        return copies, None
    times: list[bytes] = []
    for block, end in zip(lines.blocks, lines.ends, strict=True):
        upto = bisect_right(fresh, end - 1, len(times))
        times += [pack_time(block.stored_ms)] * (upto - len(times))
    return copies, Changes.pack("seen", DIGEST_BYTES, zip(digests, times, strict=True))


def _find_copies(
    lines: Lines, valid: Sequence[int], digests: Sequence[bytes], held: Sequence[bytes | None], dedup_window_ms: int
) -> list[int]:
    """The positions of copies. Only ids that the state knows, or that come more than once here, need a closer look."""
    suspects = {digest for digest, value in zip(digests, held, strict=True) if value is not None}
    if len(set(digests)) < len(digests):
        once: set[bytes] = set()
        for digest in digests:
            (suspects if digest in once else once).add(digest)
    if not suspects:
        return []
    copies = []
    fresh: dict[bytes, bytes] = {}
    for n, digest, value in zip(valid, digests, held, strict=True):
        if digest in suspects:
            block = lines.blocks[bisect_right(lines.ends, n)]
            known = fresh.get(digest) or value
            if known is not None and known >= pack_time(max(0, block.stream_time_ms - dedup_window_ms)):
                copies.append(n)
            else:
                fresh[digest] = pack_time(block.stored_ms)
    return copies
