"""Duplicates: the lines whose event id their partition has met before, and the ids that state remembers (rule E7).

A malformed line is never remembered. Of one event id in a partition the first copy counts. A later copy is a duplicate if
the id is still remembered at the stream time of the copy's block. Bots are remembered like other events.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import compress
from operator import ne
from typing import NamedTuple

from app.core.formats.source import AcceptedBlock
from app.core.formats.step_message import Changes
from app.core.state.encoding import pack_time
from app.core.state.tables import KEY_BYTES, StateReader


class ValidLines(NamedTuple):
    """The lines of a step that are not malformed, in log order."""

    positions: Sequence[int]
    """Their places among all lines of the step."""
    digests: Sequence[bytes]
    """The digests of their event ids."""
    blocks: Sequence[AcceptedBlock]
    """All blocks of the step."""
    ends: Sequence[int]
    """For each block, the position behind its last line."""


class Duplicates(NamedTuple):
    """The answer of `find_duplicates`."""

    positions: list[int]
    seen: Changes | None
    """The changes of state `seen`; None if there are none."""


def find_duplicates(lines: ValidLines, state: StateReader, dedup_window_ms: int) -> Duplicates:
    """The positions of duplicates, and the changes of state `seen` (rule E7)."""
    held = state.get("seen", lines.digests)
    fresh, digests = lines.positions, lines.digests
    duplicates: list[int] = []
    if found := _find(lines, held, dedup_window_ms):
        keep = [True] * len(fresh)
        for n in found:
            keep[n] = False
        duplicates = [lines.positions[n] for n in found]
        fresh, digests = list(compress(fresh, keep)), list(compress(digests, keep))
    if not fresh:
        return Duplicates(duplicates, None)
    times: list[bytes] = []
    for block, end in zip(lines.blocks, lines.ends, strict=True):
        upto = bisect_right(fresh, end - 1, len(times))
        times += [pack_time(block.stored_ms)] * (upto - len(times))
    return Duplicates(duplicates, Changes.pack("seen", KEY_BYTES["seen"], zip(digests, times, strict=True)))


def _find(lines: ValidLines, held: Sequence[bytes | None], dedup_window_ms: int) -> list[int]:
    """The places of the duplicates. Only ids that the state has, or that come twice here, need a closer look."""
    digests, places = lines.digests, range(len(lines.digests))
    suspects = list(compress(places, held))
    last = dict(zip(digests, places, strict=True))
    if len(last) < len(digests):
        again = list(compress(places, map(ne, map(last.__getitem__, digests), places)))
        suspects = sorted({*suspects, *again, *(last[digests[n]] for n in again)})
    duplicates = []
    fresh: dict[bytes, bytes] = {}
    for n in suspects:
        digest, value = digests[n], held[n]
        block = lines.blocks[bisect_right(lines.ends, lines.positions[n])]
        known = fresh.get(digest) or value
        if known is not None and known >= pack_time(max(0, block.stream_time_ms - dedup_window_ms)):
            duplicates.append(n)
        else:
            fresh[digest] = pack_time(block.stored_ms)
    return duplicates
