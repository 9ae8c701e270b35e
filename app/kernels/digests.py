"""Digests of ids: one pass over a field's texts."""

from app.kernels.cells import LEN_BITS, LEN_MASK, Bytes, Ints, Words, uint64
from app.kernels.compiled import kernel
from app.kernels.xxh3 import LONGEST, xxh3_128


@kernel("int64(uint8[::1], int64[:, ::1], uint64[::1], int64, uint64[:, ::1], int64[::1])")
def digest_texts(arena: Bytes, rec: Ints, present: Words, field: int, digests: Words, others: Ints) -> int:
    """Digest the text of one field of each line.

    Args:
        arena: uint8[size + PAD].
        rec: int64[n or more, fields].
        present: uint64[n or more].
        field: the field, of kind text.
        digests: uint64[n, 2], written: high and low half of XXH3_128; zeros where the field is absent.
        others: int64[n or more], written: the lines whose text is empty or longer than `LONGEST`; their digests are zeros.

    Returns: how many lines are in `others`.
    """
    count = 0
    for line in range(digests.shape[0]):
        digests[line, 0] = uint64(0)
        digests[line, 1] = uint64(0)
        if (present[line] >> uint64(field)) & uint64(1) == uint64(0):
            continue
        cell = rec[line, field]
        size = cell & LEN_MASK
        if size < 1 or size > LONGEST:
            others[count] = line
            count += 1
            continue
        digests[line, 0], digests[line, 1] = xxh3_128(arena, cell >> LEN_BITS, size)
    return count


@kernel("void(uint64[:, ::1], int64[::1], uint8[:, ::1])")
def pack_digests(digests: Words, rows: Ints, packed: Bytes) -> None:
    """Write digests as the state's keys: 16 bytes, big-endian, the high half first.

    Args:
        digests: uint64[n, 2].
        rows: int64[m], places in `digests`.
        packed: uint8[m, 16], written: the key of each of `rows`.
    """
    for k in range(len(rows)):
        for half in range(2):
            word = digests[rows[k], half]
            for byte in range(8):
                packed[k, 8 * half + byte] = (word >> uint64(56 - 8 * byte)) & uint64(255)
