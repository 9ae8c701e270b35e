"""Events sort by time of receipt, then id as bytes; a frame is closed up to a place in that order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.core.join.open_tables import id_in_words, words_of
from app.kernels.join.closing_order import count_passed, order_slots, total_of
from app.kernels.join.event_ids import read_ids
from app.kernels.join.layout import IDS, SIZE
from tests.unit.kernels.join_tables import Event, cells_of, table_of
from tests.unit.kernels.shapes import arena_of

LONGEST = 64
IDS_OF_EVENTS = st.builds(
    lambda prefix, text: (prefix + text)[:LONGEST],
    st.sampled_from((b"", b"12345678", b"0190163d-8694-7", b"x" * 40, b"y" * 63)),
    st.text("AZaz09_-é\U0001f600", max_size=16).map(str.encode),
).filter(bool)
EVENTS = st.tuples(st.integers(0, 3) | st.integers(0, 2**60), IDS_OF_EVENTS)
WORDS = LONGEST // 8


@given(st.lists(IDS_OF_EVENTS, max_size=9))
def test_words_of_ids_keep_the_ids_and_their_order(ids: list[bytes]) -> None:
    table = np.zeros((len(ids) + 2, IDS + WORDS), np.int64)
    read_ids(arena_of(b"".join(ids)), cells_of(ids), table, 2)
    found = [tuple(row[IDS:].tolist()) for row in table[2:]]
    assert [bytes.fromhex(one.hex()) for one in (words_bytes(row) for row in found)] == ids
    assert sorted(ids) == [event_id for _, event_id in sorted(zip(found, ids, strict=True))]


def words_bytes(words: tuple[int, ...]) -> bytes:
    return b"".join((word + 2**63).to_bytes(8) for word in words).rstrip(b"\0")


@given(st.text("AZaz09_-", min_size=1, max_size=64), st.integers(1, 8))
def test_an_id_is_cut_to_the_words_of_a_table(event_id: str, words: int) -> None:
    assert id_in_words(words_of(event_id, words)) == event_id[: 8 * words]


@given(st.lists(EVENTS, max_size=60), st.lists(EVENTS, max_size=20))
def test_slots_of_both_tables_sort_together(stored: list[Event], brought: list[Event]) -> None:
    events, own = table_of(stored, WORDS, 64), table_of(brought, WORDS)
    head = 64
    slots = np.array([*range(len(stored)), *range(head, head + len(brought))], np.int64)
    behind = np.array([7, 7, 7], np.int64)
    given_slots = np.concatenate([slots, behind])
    order_slots(events, own, head, given_slots, len(slots))
    by_slot = dict(zip(slots.tolist(), [*stored, *brought], strict=True))
    assert given_slots[: len(slots)].tolist() == sorted(slots.tolist(), key=by_slot.__getitem__)  # equal ones stay
    assert given_slots[len(slots) :].tolist() == behind.tolist()
    assert total_of(events, own, head, slots, SIZE) == sum(len(event_id) for _, event_id in by_slot.values())


@given(st.lists(EVENTS, min_size=1, max_size=30), EVENTS, st.sampled_from((0, 1, 3, WORDS)), st.integers(0, 40))
def test_events_up_to_a_place_are_passed(events: list[Event], place: Event, words: int, base: int) -> None:
    moment, event_id = place
    ring = np.roll(table_of(sorted(events), WORDS, 32), base, axis=0)
    bound = words_of(event_id.decode("utf-8", "ignore"), WORDS)[:words]
    cut = words_bytes(tuple(bound.tolist()))
    passed = [e for e in events if e[0] < moment or (words and e[0] == moment and e[1][: 8 * words] <= cut)]
    assert count_passed(ring, base, len(events), moment, bound) == len(passed)
