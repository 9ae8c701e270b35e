"""What becomes of each line on arrival: malformed, duplicate, bot, or an event for its place (rules J1, J4, E7)."""

import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from hashlib import blake2b
from typing import Final, NamedTuple

import polars as pl

from app.core.bots import WEBDRIVER
from app.core.decode import AcceptedBlock, Lines
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
    "page_view": Fate.FIRST,
    "engagement": Fate.SECOND,
    "ad_impression": Fate.AD_IMPRESSION,
    "ad_click": Fate.AD_CLICK,
    "redirect": Fate.REDIRECT,
}


class Sorted(NamedTuple):
    """The lines of a step by their fate."""

    parts: Mapping[Fate, pl.DataFrame]
    """Columns of the stored schema, `block`, `line`, `batch_id`, and browser, os, device, country, region, city."""
    bot_rules: list[str]
    """Of each row of part BOT the rule that named it."""
    seen: Changes | None
    """What `seen` learns; None where nothing."""


def digest_of(text: str) -> bytes:
    """16 bytes that stand for an id in state: BLAKE2b, the same in every version of everything."""
    return blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


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
    frame = lines.frame
    agents = [enricher.agent(text) for text in frame["user_agent"].to_list()]
    origins = [enricher.origin(text) for text in frame["ip"].to_list()]
    malformed = frame["malformed"].is_not_null().to_list()
    ids = frame["event_id"].to_list()
    digests = [b"" if bad else digest_of(event_id) for bad, event_id in zip(malformed, ids, strict=True)]
    fates = [_OF_TYPE.get(event_type, Fate.MALFORMED) for event_type in frame["event_type"].to_list()]
    bots = {
        n: WEBDRIVER if driven else agent.bot_rule or origin.bot_rule or ""
        for n, (driven, agent, origin) in enumerate(zip(frame["webdriver"].to_list(), agents, origins, strict=True))
        if driven or agent.bot_rule or origin.bot_rule
    }
    seen = _tell_copies(lines.blocks, digests, fates, state, dedup_window_ms)
    rules = []
    for n, rule in bots.items():
        if fates[n] > Fate.DUPLICATE:
            fates[n] = Fate.BOT
            rules.append(rule)
    batches = pl.Series([block.header.batch_id for block in lines.blocks], dtype=pl.String)
    added = [pl.Series("fate", fates, dtype=pl.UInt8), batches.gather(frame["block"]).alias("batch_id")]
    wide = frame.hstack([*added, *_who_and_where(agents, origins)])
    parts = {Fate(key[0]): part for key, part in wide.partition_by("fate", as_dict=True, include_key=False).items()}
    return Sorted(parts, rules, seen)


def _tell_copies(
    blocks: Sequence[AcceptedBlock], digests: list[bytes], fates: list[Fate], state: StateReader,
    dedup_window_ms: int,
) -> Changes | None:  # fmt: skip
    """Mark malformed lines and copies in `fates`; what `seen` learns."""
    wanted = [digest for digest in digests if digest]
    known = dict(zip(wanted, state.get("seen", wanted), strict=True))
    fresh: dict[bytes, bytes] = {}
    start = 0
    for block in blocks:
        oldest, stored = pack_time(max(0, block.stream_time_ms - dedup_window_ms)), pack_time(block.stored_ms)
        for n in range(start, start + block.header.lines):
            digest = digests[n]
            if not digest:
                fates[n] = Fate.MALFORMED
                continue
            held = fresh.get(digest) or known[digest]
            if held is not None and held >= oldest:
                fates[n] = Fate.DUPLICATE
            else:
                fresh[digest] = stored
        start += block.header.lines
    if not fresh:
        return None
    ends = struct.pack(f"<{len(fresh)}I", *range(8, 8 * len(fresh) + 1, 8))
    return Changes("seen", DIGEST_BYTES, b"".join(fresh), ends, b"".join(fresh.values()))


def _who_and_where(agents: list[Agent], origins: list[Origin]) -> list[pl.Series]:
    return [
        pl.Series("browser", [agent.browser for agent in agents], dtype=pl.String),
        pl.Series("os", [agent.os for agent in agents], dtype=pl.String),
        pl.Series("device", [agent.device for agent in agents], dtype=pl.String),
        pl.Series("country", [origin.country for origin in origins], dtype=pl.String),
        pl.Series("region", [origin.region for origin in origins], dtype=pl.String),
        pl.Series("city", [origin.city for origin in origins], dtype=pl.String),
    ]
