"""Duplicates among lines that are known by the digests of their event ids: as `app.core.etl.dedup` decides (rule E7)."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from app.core.etl.dedup import Duplicates
from app.core.formats.source import AcceptedBlock
from app.core.formats.step_message import Changes
from app.core.state.encoding import pack_time
from app.core.state.tables import KEY_BYTES, StateReader
from app.kernels.cells import Ints, Words
from app.kernels.digests import pack_digests
from app.kernels.repeats import find_firsts
from app.kernels.secret import SECRET

_TABLE = "seen"


class ValidDigests(NamedTuple):
    """The m lines of a step that are not malformed, in log order."""

    positions: Ints
    """int64[m]: their places among all lines of the step, ascending."""
    digests: Words
    """uint64[m, 2]: the digests of their event ids."""
    blocks: Sequence[AcceptedBlock]
    """All blocks of the step."""
    ends: Sequence[int]
    """For each block, the position behind its last line."""


def find_duplicate_digests(lines: ValidDigests, state: StateReader, dedup_window_ms: int) -> Duplicates:
    """The positions of duplicates, and the changes of state `seen` (rule E7)."""
    duplicates = _find(lines, state, dedup_window_ms)
    is_fresh = np.ones(len(lines.positions), np.bool_)
    is_fresh[duplicates] = False
    fresh = np.flatnonzero(is_fresh)
    found = lines.positions[duplicates].tolist()
    return Duplicates(found, _changes(lines, fresh) if len(fresh) else None)


def _find(lines: ValidDigests, state: StateReader, dedup_window_ms: int) -> list[int]:
    """The places of the duplicates. Only ids that the state has, or that come twice here, need a closer look."""
    held = _held(lines.digests, state)
    suspects = sorted({*held, *_repeated(lines.digests)})
    keys = dict(zip(suspects, _keys(lines.digests, np.array(suspects, np.int64)), strict=True))
    duplicates = []
    fresh: dict[bytes, bytes] = {}
    for n in suspects:
        key = keys[n]
        block = lines.blocks[bisect_right(lines.ends, lines.positions[n])]
        known = fresh.get(key) or held.get(n)
        if known is not None and known >= pack_time(max(0, block.stream_time_ms - dedup_window_ms)):
            duplicates.append(n)
        else:
            fresh[key] = pack_time(block.stored_ms)
    return duplicates


def _held(digests: Words, state: StateReader) -> dict[int, bytes]:
    """The values that the state has, by the places of their digests. What the state surely lacks is not asked for."""
    asked = np.flatnonzero(state.maybe(_TABLE, digests))
    values = state.get(_TABLE, _keys(digests, asked)) if len(asked) else []
    return {n: value for n, value in zip(asked.tolist(), values, strict=True) if value}


def _repeated(digests: Words) -> list[int]:
    """The places of the digests that come more than once."""
    firsts = np.empty(len(digests), np.int64)
    slots = np.zeros(1 << (2 * len(digests)).bit_length(), np.int64)
    if not find_firsts(digests, SECRET, slots, firsts):
        return []
    again = np.flatnonzero(firsts != np.arange(len(firsts)))
    return [*again.tolist(), *firsts[again].tolist()]


def _changes(lines: ValidDigests, fresh: Ints) -> Changes:
    """The times at which the ids of the places `fresh` are remembered, in the order of their keys."""
    digests = lines.digests[fresh]
    order = fresh[np.lexsort((digests[:, 1], digests[:, 0]))]  # stable: of one id, the later time comes last
    stored = np.array([block.stored_ms for block in lines.blocks], ">u8")
    times = stored[np.searchsorted(lines.ends, lines.positions[order], side="right")]
    width = times.itemsize
    ends = np.arange(width, width * len(order) + 1, width, dtype="<u4")
    keys = np.empty((len(order), KEY_BYTES[_TABLE]), np.uint8)
    pack_digests(lines.digests, order, keys)
    return Changes(_TABLE, KEY_BYTES[_TABLE], keys.tobytes(), ends.tobytes(), times.tobytes())


def _keys(digests: Words, places: Ints) -> list[bytes]:
    packed = np.empty((len(places), KEY_BYTES[_TABLE]), np.uint8)
    pack_digests(digests, places, packed)
    keys, width = packed.tobytes(), KEY_BYTES[_TABLE]
    return [keys[at : at + width] for at in range(0, len(keys), width)]
