"""Lines that no ledger has, decided again by themselves, as the ledger and the other lines leave it open (rule R5).

Everything else keeps its outcome. So the other lines of their blocks are blanked; ids that counted elsewhere are known, so
that a copy is a duplicate; and a second event whose first event is a row already is `late`, because that row is not changed.
A lost first event takes a lost second event as ever.

The lines go through the core twice. Once at the time of their receipt, without those second events. And once behind the end
of time with those second events alone: there they are late.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import polars as pl
import zstandard
from pyroaring import BitMap

from app.core.enrich.enrich import Enricher
from app.core.etl.meta import EtlMeta, encode_meta
from app.core.etl.step import PartitionEtl
from app.core.etl.stream_time import ShardWatermarks
from app.core.events.fields import TYPES, JoinPart
from app.core.formats.batch import ZSTD_LEVEL
from app.core.formats.block import decode_header, encode_block, frame_of, open_frame
from app.core.formats.columns import unpack_frame
from app.core.formats.dead_letter import DeadLetterLimit
from app.core.formats.step_message import Changes, LedgerEntry, StepMessage
from app.core.join.join_order import join_key_of
from app.core.rebuild.source_log import SHARD, StoredBlock, messages_of, order_blocks, stream_times_ms
from app.core.rules import EtlRules
from app.core.state.encoding import digest_of, pack_time
from app.core.state.tables import KEY_BYTES, MemoryState

BLANK: Final = b"{}"
"""A line that stands for one with an outcome: malformed, so nothing remembers it."""
FOR_EVER_MS: Final = 2**45
"""A dedup window in which nothing expires, and a stored time that never does."""
_SECONDS: Final = frozenset(event.name for event in TYPES if event.part is JoinPart.SECOND)
_decoder: Final = msgspec.json.Decoder(dict[str, Any])

Lines = Mapping[str, BitMap]
"""Batch -> some of its lines."""


class LostLine(NamedTuple):
    """The part of a lost line that asks for knowledge about others."""

    batch_id: str
    line: int
    event_id: str | None
    page_view_id: str | None
    is_second: bool


class Knowledge(NamedTuple):
    """The outcome of other lines."""

    event_ids: frozenset[str]
    """Ids that counted in another line of the partition."""
    first_events: Mapping[str, tuple[int, str]]
    """Page view -> received_at and event id of the first event that is a row, the earliest if there are several."""


class DecidedLines(NamedTuple):
    """The rows and the ledger of the lost lines."""

    rows: dict[str, list[pl.DataFrame]]
    """Flow -> frames of rows."""
    ledger: list[LedgerEntry]

    @property
    def lines(self) -> int:
        """How many lines have an outcome."""
        return sum(entry.lines for entry in self.ledger)


def lost_lines(envelopes: Iterable[bytes], lost: Lines) -> list[LostLine]:
    """The lost lines of some blocks."""
    found = []
    for envelope in envelopes:
        header = decode_header(envelope)
        for line, text in _numbered(envelope):
            if line in lost.get(header.batch_id, ()):
                fields = _fields(text)
                found.append(LostLine(
                    header.batch_id, line, fields.get("event_id"), fields.get("page_view_id"),
                    fields.get("event_type") in _SECONDS,
                ))  # fmt: skip
    return found


class PartitionRules(NamedTuple):
    """The decisions of one partition."""

    partition: int
    rules: EtlRules
    enricher: Enricher


def decide_lost(core: PartitionRules, envelopes: Sequence[bytes], lost: Lines, known: Knowledge) -> DecidedLines:
    """Decide lost lines again.

    Args:
        core: what decides, in the partition where all of them lie.
        envelopes: the blocks that have lost lines, of any batches.
        lost: the lost lines.
        known: the outcome of other lines with the same ids.

    Guarantees: every lost line of the blocks has one outcome; no other line has any.
    """
    late: dict[str, BitMap] = {}
    for each in lost_lines(envelopes, lost):
        if each.is_second and each.page_view_id in known.first_events:
            late.setdefault(each.batch_id, BitMap()).add(each.line)
    at_their_time = {batch_id: BitMap(lines) - late.get(batch_id, BitMap()) for batch_id, lines in lost.items()}
    run = LinesRun(core, known)
    decided = DecidedLines({}, [])
    run.take(envelopes, at_their_time, decided, is_over=False)
    run.take(envelopes, late, decided, is_over=True)
    return decided


class LinesRun:
    """Runs some lines of blocks through a core with a fresh state; nothing is forgotten, and nothing is too unreadable."""

    def __init__(self, core: PartitionRules, known: Knowledge) -> None:
        self._partition, rules, self._enricher = core
        self._rules = msgspec.structs.replace(
            rules, dedup_window_ms=FOR_EVER_MS, dead_letters=DeadLetterLimit(share=1)
        )  # fmt: skip
        seen = [(digest_of(event_id), pack_time(FOR_EVER_MS)) for event_id in known.event_ids]
        views = [
            (digest_of(view), pack_time(FOR_EVER_MS) + join_key_of(received_ms, event_id))
            for view, (received_ms, event_id) in known.first_events.items()
        ]
        self._seeds = [Changes.pack("seen", KEY_BYTES["seen"], seen), Changes.pack("views", KEY_BYTES["views"], views)]

    def take(self, envelopes: Sequence[bytes], lines: Lines, decided: DecidedLines, *, is_over: bool) -> None:
        """Decide `lines`, and add their rows and ledger to `decided`; with `is_over` all joins of their time are over."""
        blanked = [made for envelope in envelopes if (made := _blanked(envelope, lines)) is not None]
        if not blanked:
            return
        headers = [decode_header(envelope) for envelope in blanked]
        order = order_blocks([StoredBlock(h.received_at_ms, h.batch_id, h.block) for h in headers], {})
        received = [headers[n].received_at_ms for n in order]
        end_ms = max(received) + 2 * self._rules.join.settle_ms + 3_600_000
        moments = [end_ms] * len(order) if is_over else stream_times_ms(received)
        for step in self._steps(zip(moments, (blanked[n] for n in order), strict=True), end_ms, moments[0]):
            _keep(step, lines, decided)

    def _steps(self, blocks: Iterator[tuple[int, bytes]], end_ms: int, start_ms: int) -> Iterator[StepMessage]:
        state = MemoryState()
        state.apply(self._seeds)
        shards = ShardWatermarks({SHARD: start_ms}, {SHARD: []})
        meta = encode_meta(EtlMeta(stream_time_ms=start_ms, shards=shards))
        etl = PartitionEtl.load(self._partition, self._rules, self._enricher, state, meta, -1)
        waiting, number = list(messages_of(blocks, end_ms)), 0
        while waiting or etl.leftover:
            taken = etl.take(waiting)
            number += 1
            step = etl.decide(waiting[:taken], number, number - 1).message
            state.apply(step.changes)
            etl.advance(step)
            waiting = waiting[taken:]
            yield step


def _numbered(envelope: bytes) -> Iterator[tuple[int, bytes]]:
    header = decode_header(envelope)
    return enumerate(open_frame(frame_of(envelope)).split(b"\n")[:-1], header.first_line)


def _fields(text: bytes) -> dict[str, Any]:
    """The fields of an event; nothing of a malformed line, which has no duplicate and joins nothing."""
    try:
        fields = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return {} if fields.get("malformed") is not None else fields


def _blanked(envelope: bytes, lines: Lines) -> bytes | None:
    """The block with only these lines; None if it has none of them."""
    header = decode_header(envelope)
    wanted = lines.get(header.batch_id, BitMap())
    texts = [text if line in wanted else BLANK for line, text in _numbered(envelope)]
    if all(text is BLANK for text in texts):
        return None
    frame = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(b"".join(text + b"\n" for text in texts))
    return encode_block(header, frame)


def _keep(step: StepMessage, lines: Lines, decided: DecidedLines) -> None:
    """Add what the step made of `lines`."""
    wanted = [(batch_id, line) for batch_id, some in lines.items() for line in some]
    places = pl.DataFrame(wanted, schema={"batch_id": pl.String, "line": pl.Int64}, orient="row")
    for flow, packed in step.rows.items():
        kept = unpack_frame(packed).join(places, on=["batch_id", "line"], how="semi", maintain_order="left")
        if kept.height:
            decided.rows.setdefault(flow, []).append(kept)
    for entry in step.ledger:
        own = BitMap.deserialize(entry.line_set) & lines.get(entry.batch_id, BitMap())
        if own:
            decided.ledger.append(LedgerEntry(entry.batch_id, entry.outcome, len(own), own.serialize()))
