"""The table of young digests against a dictionary."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.kernels.young import young_find, young_put

SLOTS = 64
SECRETS = st.integers(0, 2**64 - 1)
words = st.sampled_from([0, 1, 2, 2**32, 2**63, 2**64 - 1])
digests = st.tuples(words, words)


def young_put_plain(table: dict[tuple[int, int], int], new: list[tuple[int, int]], place: int) -> None:
    """What `young_put` computes."""
    table.update({digest: place + n for n, digest in enumerate(new)})


@given(puts=st.lists(st.lists(digests, max_size=8), max_size=4), secret=SECRETS)
def test_each_digest_has_the_place_of_its_last_put(puts: list[list[tuple[int, int]]], secret: int) -> None:
    slots, keys = np.full(SLOTS, -1, np.int32), np.empty((SLOTS // 2, 2), np.uint64)
    places = np.empty(SLOTS // 2, np.int64)
    plain: dict[tuple[int, int], int] = {}
    used = place = 0
    for new in puts:
        used = young_put(slots, keys, places, used, np.array(new, np.uint64).reshape(-1, 2), place, np.uint64(secret))
        young_put_plain(plain, new, place)
        place += len(new)
        assert used == len(plain)
    asked = [(high, low) for high in (0, 1, 2, 7, 2**63, 2**64 - 1) for low in (0, 1, 2**32, 2**63)]
    found = np.empty(len(asked), np.int64)
    count = young_find(slots, keys, places, np.array(asked, np.uint64), found, np.uint64(secret))
    assert found.tolist() == [plain.get(digest, -1) for digest in asked]
    assert count == sum(digest in plain for digest in asked)


def test_ids_that_share_half_of_their_digests_are_spread_by_the_secret() -> None:
    """A client can make such ids; in a table that took bits of a digest they would all wait in one row."""
    n = np.arange(4096, dtype=np.uint64)
    for chosen in (np.stack([n, np.zeros_like(n)], 1), np.stack([np.zeros_like(n), n << np.uint64(40)], 1)):
        slots, keys, places = np.full(16384, -1, np.int32), np.empty((8192, 2), np.uint64), np.empty(8192, np.int64)
        assert young_put(slots, keys, places, 0, np.ascontiguousarray(chosen), 0, np.uint64(0x0123456789ABCDEF)) == 4096
        free = np.flatnonzero(slots < 0)
        assert np.diff(free).max() < 200, "no long row of taken slots"
