"""A generation's filter says yes for every key of its generation, at each moment of its life."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.formats.step_message import Changes, StepMessage, encode_step
from app.core.state.encoding import digests_in
from app.testing.memory.engine import Disk, MemoryEngine
from tables.store import filters
from tables.store.filters import Bloom, GenerationFilter
from tables.store.partition_store import PartitionStore

WINDOW_MS = 1_000
FEW = 8
"""Keys that are read at a step, and that a filter has room for."""


@pytest.fixture(autouse=True, scope="module")
def small() -> object:
    """Filters that are full after some keys, and that need many steps to be made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "KEYS_A_STEP", FEW)
        patch.setattr(filters, "LEAST_KEYS", FEW)
        yield


def key_of(n: int) -> bytes:
    return (n * 0x9E3779B97F4A7C15F39CC0605CEDC834 % 2**128).to_bytes(16, "big")


def step_of(number: int, puts: dict[str, list[int]], stored_ms: int) -> bytes:
    """Step `number` at offset `number` - 1: puts numbers into tables."""
    value = {"seen": stored_ms.to_bytes(8, "big"), "views": stored_ms.to_bytes(8, "big") + bytes(20)}
    changes = [Changes.pack(table, 16, [(key_of(n), value[table]) for n in some]) for table, some in puts.items()]
    return encode_step(StepMessage(1, 0, number, number - 2, number, number, stored_ms, b"", {}, {}, [], [], changes))


def asked(store: PartitionStore, table: str, numbers: range | list[int]) -> list[bool]:
    return [bool(maybe) for maybe in store.maybe(table, digests_in(b"".join(map(key_of, numbers))))]


acts = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["seen", "views"]), st.integers(0, 25), max_size=2),
        st.integers(0, 300),
        st.sampled_from(["", "", "write", "crash", "close"]),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(acts)
def test_no_key_is_denied_whatever_happened(history: list[tuple[dict[str, int], int, str]]) -> None:
    """Growth, generations that are dropped, crashes, and filters that are made again between them."""
    disk = Disk()

    def opened() -> PartitionStore:
        return PartitionStore(disk.open("db"), WINDOW_MS, lambda: 2_000)

    db, stored_ms, made, log = opened(), 0, 0, list[bytes]()
    known: list[tuple[str, int, int]] = []
    for number, (puts, passed_ms, then) in enumerate(history, 1):
        stored_ms += passed_ms
        numbers = {table: list(range(made, made + count)) for table, count in puts.items()}
        made += 25
        known += [(table, n, stored_ms) for table, some in numbers.items() for n in some]
        log.append(step_of(number, numbers, stored_ms))
        db.follow(log[-1], number - 1)
        if then == "write":
            db.write()
        elif then == "close":
            db.close()
            db = opened()
        elif then == "crash":
            disk.release("db")
            db = opened()
            for offset in range(db.rows_offset + 1, number):
                db.follow(log[offset], offset)
        alive = [(table, n) for table, n, stored in known if stored + WINDOW_MS >= stored_ms]
        for table in ("seen", "views"):
            mine = [n for name, n in alive if name == table]
            assert all(asked(db, table, mine))
            assert None not in db.get(table, [key_of(n) for n in mine])


def test_a_store_that_is_opened_asks_the_database_until_it_has_read_its_keys() -> None:
    disk = Disk()
    db = PartitionStore(disk.open("db"), WINDOW_MS)
    db.follow(step_of(1, {"seen": list(range(3 * FEW))}, 10), 0)
    assert not any(asked(db, "seen", range(100, 110)))
    assert not any(asked(db, "views", range(3 * FEW))), "the same ids in another table"
    db.close()
    db = PartitionStore(disk.open("db"), WINDOW_MS)
    answers = []
    for number in range(2, 7):
        answers.append(any(asked(db, "seen", range(100, 110))))
        db.follow(step_of(number, {"seen": [200 + number], "views": [300 + number]}, 10), number - 1)
    assert answers == [True, True, True, False, False]
    assert all(asked(db, "seen", range(3 * FEW)))
    assert all(asked(db, "seen", range(202, 207)) + asked(db, "views", range(302, 307))), "what came while it read"


def test_a_full_filter_gets_a_layer_with_room_for_the_rest_of_its_generation() -> None:
    known = GenerationFilter(Disk().open("db"), "generation-0", (0, 1_000), FEW, 0)
    moments = [(10, 100), (10, 200), (15, 800), (5, 990), (40, 1_000)]
    rooms = [FEW, 30, 30, 30, 40]
    """30: a fifth of the time is over, but 3 x 10 is the most. 40: the time is over, and as many again have room."""
    made = 0
    for (count, now_ms), room in zip(moments, rooms, strict=True):
        known.add("seen", digests_in(b"".join(key_of(n) for n in range(made, made + count))), now_ms)
        made += count
        assert known._layers[-1].room == room
        maybe = np.zeros(made, np.bool_)
        known.ask("seen", digests_in(b"".join(key_of(n) for n in range(made))), maybe)
        assert maybe.all()
        assert known.keys == made
    burst = GenerationFilter(Disk().open("db"), "generation-0", (0, 10**9), FEW, 0)
    for _ in range(2):
        burst.add("seen", digests_in(b"".join(key_of(n) for n in range(10))), 5)
    assert burst._layers[-1].room == 30, "a rush in the first moments says little about the rest"


def test_a_filter_begins_at_a_cache_line() -> None:
    assert all(Bloom(room)._words.ctypes.data % 64 == 0 for room in (FEW, 1_000, 77_777))


class Asked(MemoryEngine):
    """Notes the keys that are asked for."""

    asked: list[bytes]

    def get(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        if family.startswith("generation"):
            self.asked += keys
        return super().get(family, keys)


@pytest.mark.parametrize("written", [False, True])
def test_the_database_is_asked_for_what_it_may_have_only(written: bool) -> None:
    engine = Asked(Disk(), "db", {"default": {}})
    engine.asked = []
    db = PartitionStore(engine, WINDOW_MS)
    db.follow(step_of(1, {"seen": [1, 2, 3]}, 10), 0)
    if written:
        db.write()
    find: Callable[[int], bytes | None] = lambda n: db.get("seen", [key_of(n)])[0]  # noqa: E731
    assert [find(n) for n in (7, 1, 8)] == [None, (10).to_bytes(8, "big"), None]
    assert engine.asked == ([b"s" + key_of(1)] if written else [])
