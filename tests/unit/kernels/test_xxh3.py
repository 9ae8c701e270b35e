"""Digests are those of package xxhash, bit for bit; hashes in memory depend on the text alone, and on a secret."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from app.kernels.cells import Bytes
from app.kernels.compiled import kernel
from app.kernels.digests import digest_texts, pack_digests
from app.kernels.secret import SECRET
from app.kernels.xxh3 import LONGEST, hash_digest, hash_text
from tests.unit.kernels.shapes import arena_of, column_of


@kernel("uint64(uint8[::1], int64, int64, uint64)")
def hash_of(arena: Bytes, at: int, size: int, secret: int) -> int:
    return hash_text(arena, at, size, secret)


@kernel("uint64(uint64, uint64, uint64)")
def hash_of_digest(high: int, low: int, secret: int) -> int:
    return hash_digest(high, low, secret)


def digested(texts: list[bytes | None]) -> tuple[list[bytes], list[int]]:
    """The keys of the texts, and the texts that the kernel leaves to its caller."""
    arena, rec, present = column_of(texts)
    digests, others = np.full((len(texts), 2), 7, np.uint64), np.zeros(len(texts), np.int64)
    count = digest_texts(arena, rec, present, 0, digests, others)
    packed = np.zeros((len(texts), 16), np.uint8)
    pack_digests(digests, np.arange(len(texts)), packed)
    return [row.tobytes() for row in packed], others[:count].tolist()


def plain(texts: list[bytes | None]) -> tuple[list[bytes], list[int]]:
    fits = [text is not None and 1 <= len(text) <= LONGEST for text in texts]
    keys = [xxh3_128_digest(text) if ok and text is not None else bytes(16) for text, ok in zip(texts, fits, strict=True)]
    return keys, [n for n, (text, ok) in enumerate(zip(texts, fits, strict=True)) if text is not None and not ok]


def test_every_length_has_the_digest_of_xxhash() -> None:
    chance = random.Random(1)
    texts: list[bytes | None] = [chance.randbytes(size) for size in range(1, LONGEST + 1) for _ in range(40)]
    texts += [bytes([byte]) * size for size in range(1, LONGEST + 1) for byte in (0, 0x7F, 0x80, 0xFF)]
    chance.shuffle(texts)
    assert digested(texts) == plain(texts)


@given(st.lists(st.none() | st.binary(max_size=LONGEST + 3), min_size=1, max_size=8))
def test_digests_are_those_of_the_plain_function(texts: list[bytes | None]) -> None:
    assert digested(texts) == plain(texts)


@pytest.mark.parametrize("size", range(70))
def test_a_hash_depends_on_each_byte_of_its_text_and_on_none_behind_it(size: int) -> None:
    text = random.Random(size).randbytes(size)
    one = hash_of(arena_of(b"##" + text, 0x00), 2, size, SECRET)
    assert hash_of(arena_of(b"#" + text, 0xFF), 1, size, SECRET) == one
    changed = [text[:n] + bytes([text[n] ^ 1]) + text[n + 1 :] for n in range(size)]
    hashes = {hash_of(arena_of(other), 0, size, SECRET) for other in changed}
    assert len(hashes) == size
    assert one not in hashes
    assert hash_of(arena_of(text + b"\0"), 0, size + 1, SECRET) != one


def test_texts_that_collide_under_one_secret_do_not_under_another() -> None:
    first, second = np.uint64(3), np.uint64(2**63 + 11)
    texts = [b"text %d" % n for n in range(4000)]
    bucket = [text for text in texts if int(hash_of(arena_of(text), 0, len(text), first)) & 255 == 0]
    assert len(bucket) > 5
    assert len({int(hash_of(arena_of(text), 0, len(text), second)) & 255 for text in bucket}) > len(bucket) // 2
    digests = [(n, 0) for n in range(4000)]
    slots = [digest for digest in digests if int(hash_of_digest(*map(np.uint64, digest), first)) & 255 == 0]
    assert len(slots) > 5
    assert len({int(hash_of_digest(*map(np.uint64, digest), second)) & 255 for digest in slots}) > len(slots) // 2
