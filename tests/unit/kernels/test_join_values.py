"""Values of table `views` are those of the plain path, and are read back as they were packed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.core.join.join_order import join_key_of
from app.core.state.encoding import pack_time
from app.kernels.join.event_ids import read_ids
from app.kernels.join.layout import (
    BROUGHT,
    FIRST,
    FIRST_RECEIVED,
    HIGH,
    IDS,
    LOW,
    NONE,
    RECEIVED,
    STORED,
    VIEW,
    VIEW_COLUMNS,
)
from app.kernels.join.view_values import match_known, pack_views, read_known
from tests.unit.kernels.join_tables import cells_of, table_of
from tests.unit.kernels.shapes import arena_of

TIMES = st.integers(0, 2**62)
FIRSTS = st.lists(
    st.tuples(st.binary(min_size=16, max_size=16), TIMES, TIMES, st.text("AZaz09_-", min_size=1, max_size=64)), max_size=8
)
HEAD_SLOT = 1000


@given(FIRSTS)
def test_values_are_those_of_the_plain_path(firsts: list[tuple[bytes, int, int, str]]) -> None:
    ids = [event_id.encode() for *_, event_id in firsts]
    own = table_of([(received, event_id) for (_, _, received, _), event_id in zip(firsts, ids, strict=True)], 8)
    own[:, VIEW] = np.arange(len(firsts))
    views = np.full((len(firsts), VIEW_COLUMNS), NONE, np.int64)
    for n, (digest, stored, _, _) in enumerate(firsts):
        views[n, [HIGH, LOW]] = np.frombuffer(digest, ">i8")
        views[n, [FIRST, STORED]] = HEAD_SLOT + n, stored
    numbers = np.arange(len(firsts))[::-1].copy()
    keys, ends = np.empty(16 * len(firsts), np.uint8), np.empty(len(firsts), np.uint32)
    expected = [pack_time(stored) + join_key_of(received, event_id) for _, stored, received, event_id in firsts][::-1]
    values = np.empty(sum(map(len, expected)), np.uint8)
    arena = arena_of(b"".join(ids))
    assert pack_views(arena, cells_of(ids), own, views, HEAD_SLOT, numbers, keys, ends, values) == len(values)
    assert values.tobytes() == b"".join(expected)
    assert ends.tolist() == np.cumsum([len(value) for value in expected], dtype=np.int64).tolist()
    assert keys.tobytes() == b"".join(digest for digest, *_ in firsts[::-1])

    known = np.full((2 * len(firsts), own.shape[1]), NONE, np.int64)  # the first events themselves, then those of state
    known[: len(firsts)] = own
    read = np.full((len(firsts), VIEW_COLUMNS), NONE, np.int64)
    read_known(arena_of(b"".join(expected)), cells_of(expected), numbers, known, len(firsts), HEAD_SLOT, read)
    assert read[:, FIRST_RECEIVED].tolist() == [received for _, _, received, _ in firsts]
    assert read[:, STORED].tolist() == [stored for _, stored, _, _ in firsts]
    for n in range(len(firsts)):
        row = known[read[n, FIRST] - HEAD_SLOT]
        assert row[[RECEIVED, *range(IDS, len(row))]].tolist() == own[n, [RECEIVED, *range(IDS, len(row))]].tolist()
    known[: len(firsts) // 2, RECEIVED] += 1  # the first half are other first events of these page views
    match_known(known, known, len(firsts), len(firsts), HEAD_SLOT, read)
    half = len(firsts) // 2
    assert read[:, BROUGHT].tolist() == [NONE] * half + [0] * (len(firsts) - half)
    assert read[half:, FIRST].tolist() == [HEAD_SLOT + n for n in range(half, len(firsts))]


def test_an_id_longer_than_the_table_is_cut() -> None:
    table = np.zeros((1, IDS + 1), np.int64)
    read_ids(arena_of(b"0123456789"), cells_of([b"0123456789"]), table, 0)
    assert table[0, IDS] == int.from_bytes(b"01234567") - 2**63
