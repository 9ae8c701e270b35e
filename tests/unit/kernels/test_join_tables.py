"""Page views come and go with the events that name them, and no slot or number ever means another one."""

from collections import Counter
from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.core.join import open_tables
from app.core.join.open_tables import OpenTables
from app.kernels.cells import Ints
from app.kernels.compiled import kernel
from app.kernels.join.layout import BASE, EVENTS, HEAD, IDS, NEXT, NONE, RECEIVED, ROW, VIEW, VIEW_COLUMNS, find
from app.kernels.join.page_views import empty_places, number_views
from app.kernels.join.window import LIVE, add_frame, close_slots, decide_slots

FRAMES = st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=20), min_size=1, max_size=30)


@kernel("int64(int64[::1], int64[:, ::1], int64, int64, uint64)")
def number_of(places: Ints, table: Ints, high: int, low: int, secret: int) -> int:
    return find(places, table, high, low, secret)


def small_tables() -> OpenTables:
    with mock.patch.multiple(open_tables, _EVENTS=2, _VIEWS=1):
        return OpenTables()


def digest_of(view: int) -> tuple[int, int]:
    """Page views with one half in common are different ones."""
    return view // 8, -(view % 8)


def add(tables: OpenTables, views: list[int], frame: int, *, waits: bool) -> int:
    """Put a frame of events into the tables, each received at its row. Returns the slot of the first."""
    own = np.full((len(views), IDS + tables.words), NONE, np.int64)
    own[:, RECEIVED] = np.arange(len(views))
    step_places, step_views = empty_places(len(views)), np.empty((len(views), VIEW_COLUMNS), np.int64)
    numbers = np.empty(len(views), np.int64)
    digests = np.array([digest_of(view) for view in views], np.int64)
    count = number_views(digests, tables.secret, tables.places, tables.views, step_places, step_views, numbers)
    assert count == len(set(views))
    assert len(set(zip(views, numbers.tolist(), strict=True))) == count
    own[:, VIEW] = numbers
    tables.fit_events(len(views))
    tables.fit_views(count)
    base = tables.place(len(views))
    rows = np.arange(len(views))
    add_frame(
        tables.events, tables.views, tables.places, tables.counts, tables.secret, own, step_views[:count], rows, rows, base,
        frame, int(waits), np.empty(len(views), np.int64),
    )  # fmt: skip
    assert (step_views[:count, BASE] != NONE).all()
    return base


@given(FRAMES, st.booleans(), st.randoms(use_true_random=False))
def test_a_page_view_is_known_as_long_as_an_event_names_it(frames: list[list[int]], waits: bool, chance: object) -> None:
    tables = small_tables()
    open_frames: dict[int, list[int]] = {}
    named: Counter[int] = Counter()
    for number, views in enumerate(frames):
        base = add(tables, views, number, waits=waits)
        open_frames[base] = views
        named += Counter(views)
        if len(open_frames) > 3:
            gone = chance.choice(list(open_frames))  # type: ignore[attr-defined]
            left = open_frames.pop(gone)
            changed = (tables.events, tables.views, tables.places, tables.counts, tables.secret)
            if waits:
                slots = np.arange(gone, gone + len(left))
                chance.shuffle(slots)  # type: ignore[attr-defined]
                decide_slots(*changed, np.concatenate([slots, slots]))  # the second time nothing changes
            else:
                close_slots(*changed, gone, gone + len(left))
            tables.free(gone)
            named -= Counter(left)
        for view in range(61):
            found = number_of(tables.places, tables.views, *digest_of(view), tables.secret)
            assert (0 if found == NONE else int(tables.views[found, EVENTS])) == named[view]
            slot, chain = int(tables.views[found, HEAD]) if found != NONE and waits else NONE, []
            while slot != NONE:
                chain.append(slot)
                slot = int(tables.events[tables.rows_of(np.array([slot]))[0], NEXT])
            expected = [first + n for first, held in open_frames.items() for n, other in enumerate(held) if other == view]
            assert sorted(chain) == (expected if waits else [])
        for first, held in open_frames.items():
            rows = tables.events[tables.rows_of(np.arange(first, first + len(held)))]
            assert rows[:, ROW].tolist() == list(range(len(held)))
        assert tables.counts[LIVE] == len(named)
