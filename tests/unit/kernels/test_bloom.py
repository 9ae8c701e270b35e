"""The blocked filter against a plain one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.kernels.bloom import BLOCK_WORDS, bloom_add, bloom_ask

WORDS = 4 * BLOCK_WORDS
digests = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
salts = st.sampled_from([0, 1, 0x9E3779B97F4A7C15])


def bits_plain(digest: tuple[int, int], salt: int) -> set[tuple[int, int]]:
    """(word, bit) for each bit of a digest in a filter of `WORDS`."""
    high, low = digest
    block = high * (WORDS // BLOCK_WORDS) >> 64
    return {(block * BLOCK_WORDS + word, (low ^ salt) >> (6 * word) & 63) for word in range(BLOCK_WORDS)}


def bloom_add_plain(bits: set[tuple[int, int]], added: list[tuple[int, int]], salt: int) -> None:
    """What `bloom_add` computes."""
    for digest in added:
        bits |= bits_plain(digest, salt)


def bloom_ask_plain(bits: set[tuple[int, int]], digest: tuple[int, int], salt: int) -> bool:
    """What `bloom_ask` computes for one digest."""
    return bits_plain(digest, salt) <= bits


def array_of(some: list[tuple[int, int]]) -> np.ndarray:
    return np.array(some, np.uint64).reshape(-1, 2)


@given(added=st.lists(st.tuples(digests, salts), max_size=30), others=st.lists(digests, max_size=30), salt=salts)
def test_a_filter_has_the_bits_of_what_was_added(
    added: list[tuple[tuple[int, int], int]], others: list[tuple[int, int]], salt: int
) -> None:
    words, bits = np.zeros(WORDS, np.uint64), set[tuple[int, int]]()
    for digest, its in added:
        bloom_add(words, array_of([digest]), np.uint64(its))
        bloom_add_plain(bits, [digest], its)
    assert {(n, bit) for n, word in enumerate(words.tolist()) for bit in range(64) if word >> bit & 1} == bits
    asked = [*(digest for digest, _ in added), *others]
    maybe = np.zeros(len(asked), np.bool_)
    bloom_ask(words, array_of(asked), np.uint64(salt), maybe)
    assert maybe.tolist() == [bloom_ask_plain(bits, digest, salt) for digest in asked]
    known = np.zeros(len(added), np.bool_)
    for n, (digest, its) in enumerate(added):
        bloom_ask(words, array_of([digest]), np.uint64(its), known[n : n + 1])
    assert known.all()


def test_an_answer_of_before_stays() -> None:
    maybe = np.array([True, False])
    bloom_ask(np.zeros(WORDS, np.uint64), array_of([(1, 1), (2, 2)]), np.uint64(0), maybe)
    assert maybe.tolist() == [True, False]


def test_at_twelve_bits_a_key_one_strange_digest_in_a_hundred_is_let_through() -> None:
    rng, keys = np.random.default_rng(1), 50_000
    words = np.zeros(keys * 12 // 512 * BLOCK_WORDS, np.uint64)
    bloom_add(words, rng.integers(0, 2**64, (keys, 2), np.uint64), np.uint64(0))
    maybe = np.zeros(keys, np.bool_)
    bloom_ask(words, rng.integers(0, 2**64, (keys, 2), np.uint64), np.uint64(0), maybe)
    assert 0 < maybe.mean() < 0.01
