"""The lines of a step, classified and by column, and the lines of one kind (rule J1)."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, compress
from typing import Final, NamedTuple

import polars as pl

from app.core.enrich.enrich import AGENT_COLUMNS, ORIGIN_COLUMNS, Enricher
from app.core.etl.classify import CODES, ClassifiedLines, LineAgents, LineKind, Rejection, classify_lines
from app.core.etl.decode import Decoded
from app.core.etl.dedup import ValidLines, find_duplicates
from app.core.events.fields import STORED_FIELDS
from app.core.formats.columns import DTYPES, column, stack
from app.core.formats.source import AcceptedBlock
from app.core.formats.step_message import Changes
from app.core.state.tables import StateReader

JUDGED: Final = frozenset({"event_type", "ip", "user_agent", "webdriver", "malformed", "payload", "payload_b64"})
"""Fields that the classification of lines reads; no frame gets them from here."""
_SCHEMA: Final = {name: DTYPES[kind] for name, kind in STORED_FIELDS.items() if name not in JUDGED}
_TEXT: Final = pl.String()


class StepLines(NamedTuple):
    """Every line of a step's blocks, in log order; a line's place is its position in the step."""

    frame: pl.DataFrame
    """The fields that rows have, and the columns that come from the user agent and the address; those with a value."""
    blocks: Sequence[AcceptedBlock]
    ends: Sequence[int]
    """For each block, the position behind its last line."""
    positions: Mapping[int, Sequence[int]]
    """Code -> the positions of its lines, ascending."""
    rejections: Mapping[int, Rejection]
    """The rejections of bots and malformed lines, duplicates included, by their positions."""
    seen: Changes | None
    """The changes of state `seen`; None if there are none."""


def sort_lines(read: Iterable[Decoded], state: StateReader, dedup_window_ms: int, enricher: Enricher) -> StepLines:
    """Decide on every line of a step.

    Args:
        read: the lines, a few blocks at a time, so that their objects are freed early; the columns are small.
        state: the partition's tables before the step.
        dedup_window_ms: how long an event id is remembered.
        enricher: look-ups.
    """
    frames: list[pl.DataFrame] = []
    blocks: list[AcceptedBlock] = []
    codes: list[int] = []
    digests: list[bytes] = []
    rejections: dict[int, Rejection] = {}
    for decoded in read:
        classified = classify_lines(decoded, enricher)
        frames.append(_frame(decoded, classified))
        rejections.update((n + len(codes), rejection) for n, rejection in classified.rejections.items())
        blocks += decoded.blocks
        codes += classified.codes
        digests += classified.digests
    ends = list(accumulate(block.header.lines for block in blocks))
    valid: Sequence[int] = range(len(codes))
    if LineKind.MALFORMED in codes or LineKind.ERASED in codes:
        has_id = [code > LineKind.ERASED for code in codes]
        valid, digests = list(compress(valid, has_id)), list(compress(digests, has_id))
    duplicates = find_duplicates(ValidLines(valid, digests, blocks, ends), state, dedup_window_ms)
    for n in duplicates.positions:
        codes[n] = LineKind.DUPLICATE
    positions: list[list[int]] = [[] for _ in range(CODES)]
    for n, code in enumerate(codes):
        positions[code].append(n)
    by_code = {code: places for code, places in enumerate(positions) if places}
    return StepLines(stack(frames).rechunk(), blocks, ends, by_code, rejections, duplicates.seen)


def _frame(decoded: Decoded, classified: ClassifiedLines) -> pl.DataFrame:
    columns = [column(name, decoded.columns[name], dtype) for name, dtype in _SCHEMA.items()]
    columns += _agent_columns(classified.agents, decoded.columns["key_kind"])
    if classified.places:
        columns += [column(name, texts, _TEXT) for name, texts in zip(ORIGIN_COLUMNS, classified.places, strict=True)]
    return pl.DataFrame([made for made in columns if made is not None])


def _agent_columns(agents: LineAgents, key_kinds: Sequence[str | None]) -> list[pl.Series]:
    """The columns that come from the user agent, and the user agent itself.

    A line of a collector that knows no `key_kind` keeps no user agent: the etl that was made with that collector has no
    column for it, and could not take the window over (rule E10).
    """
    rows = pl.Series(agents.places, dtype=pl.UInt32)
    columns = [
        pl.Series(name, [getattr(agent, name) for agent in agents.facts], dtype=_TEXT)[rows] for name in AGENT_COLUMNS
    ]
    if None in key_kinds:
        if key_kinds.count(None) == len(key_kinds):
            return columns
        kept = [n if kind else None for n, kind in zip(agents.places, key_kinds, strict=True)]
        rows = pl.Series(kept, dtype=pl.UInt32)
    return [*columns, pl.Series("user_agent", agents.texts, dtype=_TEXT)[rows]]


class Part:
    """Lines of one code, in log order.

    Args:
        lines: all lines of the step.
        code: the code of the lines; at least one line has it.
    """

    def __init__(self, lines: StepLines, code: int) -> None:
        self._lines = lines
        self.positions = positions = lines.positions[code]
        self.blocks = lines.blocks
        self.spans = _spans(positions, lines.ends)
        """For each block, the part's own positions in it."""
        self.numbers: list[int] = []
        """For each line, its number in its batch."""
        for block, span, end in zip(lines.blocks, self.spans, lines.ends, strict=True):
            shift = block.header.first_line + block.header.lines - end
            self.numbers += [n + shift for n in positions[span.start : span.stop]]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def rejections(self) -> list[Rejection]:
        """For each line of a part that is rejected, its rejection."""
        return [self._lines.rejections[n] for n in self.positions]

    def by_batch(self) -> Iterator[tuple[str, list[int]]]:
        """(batch_id, line numbers), block by block."""
        for block, span in zip(self.blocks, self.spans, strict=True):
            if span:
                yield block.header.batch_id, self.numbers[span.start : span.stop]

    def texts(self) -> Iterator[bytes]:
        """The stored text of each line."""
        start_of_block = 0
        for block, span, end in zip(self.blocks, self.spans, self._lines.ends, strict=True):
            at, start = start_of_block, 0
            for n in self.positions[span.start : span.stop]:
                for _ in range(n - at):
                    start = block.text.index(b"\n", start) + 1
                at = n
                yield block.text[start : block.text.index(b"\n", start)]
            start_of_block = end

    def frame(self, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """DataFrame[one row a line] with the columns of `schema`, less those that no line of the step has."""
        held = self._lines.frame
        rows = pl.Series(self.positions, dtype=pl.UInt32)
        return held[[name for name in held.columns if name in schema]][rows].hstack(
            [self._batch_ids(), pl.Series("line", self.numbers, dtype=schema["line"])]
        )

    def _batch_ids(self) -> pl.Series:
        batch_ids = pl.Series("batch_id", [block.header.batch_id for block in self.blocks], dtype=_TEXT)
        numbers = [number for number, span in enumerate(self.spans) for _ in span]
        return batch_ids[pl.Series(numbers, dtype=pl.UInt32)]


def _spans(positions: Sequence[int], ends: Sequence[int]) -> list[range]:
    spans, start = [], 0
    for end in ends:
        upto = bisect_left(positions, end, start)
        spans.append(range(start, upto))
        start = upto
    return spans
