"""Which lines are copies of one that their partition has met, and what state remembers of the others (rule E7).

A malformed line is never remembered. The first copy of an event id in the partition counts, whatever it is; a copy that
comes while the id is remembered at its block's stream time is a duplicate. Bots are remembered like any other.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from app.core.decode import AcceptedBlock
from app.core.fate import pack_time
from app.core.state import KEY_BYTES, StateReader
from app.core.step_message import Changes


class Arriving(NamedTuple):
    """The lines of a step that are not malformed, in log order."""

    positions: Sequence[int]
    """Their places among all lines of the step."""
    digests: Sequence[bytes]
    """Of their event ids."""
    blocks: Sequence[AcceptedBlock]
    """All blocks of the step."""
    ends: Sequence[int]
    """Of each block the position behind its last line."""


class Copies(NamedTuple):
    """What `tell_copies` found."""

    positions: list[int]
    seen: Changes | None
    """What `seen` learns; None where nothing."""


def tell_copies(lines: Arriving, state: StateReader, dedup_window_ms: int) -> Copies:
    """The positions of copies; what `seen` learns."""
    held = state.get("seen", lines.digests)
    copies = _find(lines, held, dedup_window_ms)
    fresh, digests = lines.positions, lines.digests
    if copies:
        gone = set(copies)
        digests = [digest for n, digest in zip(fresh, digests, strict=True) if n not in gone]
        fresh = [n for n in fresh if n not in gone]
    if not fresh:
        return Copies(copies, None)
    times: list[bytes] = []
    for block, end in zip(lines.blocks, lines.ends, strict=True):
        upto = bisect_right(fresh, end - 1, len(times))
        times += [pack_time(block.stored_ms)] * (upto - len(times))
    return Copies(copies, Changes.pack("seen", KEY_BYTES["seen"], zip(digests, times, strict=True)))


def _find(lines: Arriving, held: Sequence[bytes | None], dedup_window_ms: int) -> list[int]:
    """The positions of copies. Only ids that the state knows, or that come more than once here, need a closer look."""
    digests = lines.digests
    suspects = {digest for digest, value in zip(digests, held, strict=True) if value is not None}
    if len(set(digests)) < len(digests):
        once: set[bytes] = set()
        for digest in digests:
            (suspects if digest in once else once).add(digest)
    if not suspects:
        return []
    copies = []
    fresh: dict[bytes, bytes] = {}
    for n, digest, value in zip(lines.positions, digests, held, strict=True):
        if digest in suspects:
            block = lines.blocks[bisect_right(lines.ends, n)]
            known = fresh.get(digest) or value
            if known is not None and known >= pack_time(max(0, block.stream_time_ms - dedup_window_ms)):
                copies.append(n)
            else:
                fresh[digest] = pack_time(block.stored_ms)
    return copies
