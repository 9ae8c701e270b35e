"""Equal texts have one number, whatever the table must do: grow, probe past collisions, forget."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernels.cells import PAD
from app.kernels.intern import ABSENT
from app.kernels.intern import fill_slots as fill_slots_compiled
from app.kernels.intern import intern as intern_compiled
from app.kernels.repeats import find_firsts as find_firsts_compiled
from app.kernels.text_table import TextTable
from tests.unit.kernels.shapes import column_of


def intern(texts: Sequence[bytes | None], known: list[bytes]) -> list[int]:
    """The number of each text; `known` has the texts from number 1 on, and grows."""
    numbers = []
    for text in texts:
        if text is not None and text not in known:
            known.append(text)
        numbers.append(ABSENT if text is None else known.index(text) + 1)
    return numbers


def of_table(table: TextTable, texts: Sequence[bytes | None]) -> list[int]:
    arena, rec, present = column_of(texts)
    found: list[int] = table.numbers(arena, rec, present, 0).tolist()
    return found


alike = st.integers(0, 40).flatmap(lambda size: st.sampled_from([b"x" * size, b"x" * size + b"y", b"y" + b"x" * size]))


@given(st.lists(st.lists(st.none() | alike | st.binary(max_size=40), max_size=30), max_size=4))
def test_numbers_are_those_of_the_plain_function(steps: list[list[bytes | None]]) -> None:
    table, known = TextTable(1000, 10**6), list[bytes]()
    for texts in steps:
        assert of_table(table, texts) == intern(texts, known)
    assert [table.text(number) for number in range(1, table.known)] == known


def test_a_table_grows_and_keeps_its_numbers() -> None:
    texts: list[bytes | None] = [b"text %d" % n * (n % 7) for n in range(5000)] + [b"long" * 50_000, None]
    table, known = TextTable(100_000, 10**9), list[bytes]()
    expected = intern(texts, known)
    assert of_table(table, texts) == expected
    assert of_table(table, texts[::-1]) == expected[::-1]
    assert table.known == len(known) + 1


@pytest.mark.parametrize("texts", [[b"%d" % n for n in range(11)], [b"x" * 30, b"y" * 71]])
def test_a_full_table_forgets_when_it_is_told(texts: list[bytes | None]) -> None:
    table = TextTable(10, 100)
    assert not table.is_full
    of_table(table, texts)
    assert table.is_full
    assert of_table(table, texts[:1]) == [1], "a full table still answers"
    table.forget()
    assert not table.is_full
    assert of_table(table, texts[::-1]) == list(range(1, len(texts) + 1))


def test_texts_that_share_a_slot_are_told_apart() -> None:
    """All texts begin at one slot if the table has only two, and so few bits of their hashes count."""
    texts = [b"a", b"b", b"a", b"c"]
    arena, rec, present = column_of(texts)
    slots, hashes, ends = np.zeros(4, np.int64), np.zeros(4, np.uint64), np.zeros(4, np.int64)
    pool, known, numbers = np.zeros(16 + PAD, np.uint8), np.ones(1, np.int64), np.full(4, 9, np.int64)
    for first, done in ((0, 4), (2, 4)):
        assert (
            intern_compiled(arena, rec, present, 0, first, np.uint64(1), slots, hashes, ends, pool, known, numbers) == done
        )
    assert numbers.tolist() == [1, 2, 1, 3]
    assert sorted(slots.tolist()) == [0, 1, 2, 3]
    again = np.zeros(8, np.int64)
    fill_slots_compiled(hashes, 4, again)
    assert sorted(again.tolist()) == [0, 0, 0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize(("texts", "room"), [(2, 100), (9, 3)])
def test_the_kernel_stops_where_it_has_no_room(texts: int, room: int) -> None:
    arena, rec, present = column_of([b"ab", None, b"ab", b"cd"])
    hashes, ends, numbers = np.zeros(texts, np.uint64), np.zeros(texts, np.int64), np.full(4, 9, np.int64)
    pool, known = np.zeros(room + PAD, np.uint8), np.ones(1, np.int64)
    done = intern_compiled(
        arena, rec, present, 0, 0, np.uint64(7), np.zeros(16, np.int64), hashes, ends, pool, known, numbers
    )  # fmt: skip
    assert (done, known.tolist(), numbers[:done].tolist()) == (3, [2], [1, 0, 1])


def find_firsts(digests: list[tuple[int, int]]) -> list[int]:
    return [digests.index(digest) for digest in digests]


halves = st.sampled_from([0, 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)


@given(st.lists(st.tuples(halves, halves), max_size=40))
def test_firsts_are_those_of_the_plain_function(digests: list[tuple[int, int]]) -> None:
    slots, firsts = np.zeros(1 << (2 * len(digests)).bit_length(), np.int64), np.empty(len(digests), np.int64)
    given_digests = np.array(digests, np.uint64).reshape(-1, 2)
    repeats = find_firsts_compiled(given_digests, np.uint64(3), slots, firsts)
    assert firsts.tolist() == find_firsts(digests)
    assert repeats == len(digests) - len(set(digests))
