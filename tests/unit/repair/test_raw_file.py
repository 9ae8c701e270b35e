"""A batch from its raw file, and the raw file from its blocks (rule R3)."""

import random

import pytest
import zstandard

from app.core.formats.batch import SealedBatch, cut_again, new_batch_id, seal
from app.core.repair.raw_file import frames_of, item_of, raw_of
from app.errors import FrameInvalid, RepairRefused
from tests.builders.events import event, parse, text

AT_MS = 1_795_000_000_000
PARTITIONS = 8


def batch(events: int = 60, *, partitions: int = PARTITIONS) -> SealedBatch:
    """A batch with lines of every kind, on many partitions: some have no page view, some are malformed, one is long."""
    chance = random.Random(events)
    lines = []
    for n in range(events):
        kind = chance.choice(["page_view", "engagement", "redirect"])
        view = {"page_view_id": None} if kind == "redirect" and n % 2 else {"page_view_id": f"v{chance.randrange(9)}"}
        body = text({k: v for k, v in event(kind, event_id=f"e{n}", **view).items() if v is not None})
        lines.append(parse(body, received_at_ms=AT_MS + chance.randrange(1000)))
    lines += [parse(body, received_at_ms=AT_MS + 7) for body in (b"{no json", b"\xff\xfe", b'{"event_id": ' + b"9" * 9000)]
    return seal(new_batch_id(AT_MS, bytes(10)), 3, partitions, lines)


@pytest.mark.parametrize("partitions", [1, PARTITIONS, 32])
def test_the_registry_item_is_the_one_that_the_collector_registered(partitions: int) -> None:
    sealed = batch(partitions=partitions)
    assert item_of(sealed.raw, sealed.batch_id, 3, partitions) == sealed.item


@pytest.mark.parametrize("spoil", [
    pytest.param(lambda raw: b"", id="empty"),
    pytest.param(lambda raw: raw[:-1], id="cut off"),
    pytest.param(lambda raw: raw + b"x", id="longer"),
    pytest.param(lambda raw: raw[:40] + bytes([raw[40] ^ 1]) + raw[41:], id="a bit"),
    pytest.param(lambda raw: zstandard.ZstdCompressor().compress(b"no json\n"), id="another program's"),
    pytest.param(lambda raw: zstandard.ZstdCompressor().compress(b'{"event_id":"e"}\n'), id="no receipt"),
])  # fmt: skip
def test_a_raw_file_that_no_collector_wrote_is_no_batch(spoil) -> None:
    sealed = batch()
    with pytest.raises(RepairRefused, match="is not whole"):
        item_of(spoil(sealed.raw), sealed.batch_id, 3, PARTITIONS)


def test_blocks_of_another_number_of_partitions_are_refused() -> None:
    sealed = batch(partitions=2)
    with pytest.raises(RepairRefused, match="another number of partitions"):
        item_of(sealed.raw, sealed.batch_id, 3, 7)


def test_the_raw_file_is_its_blocks_of_whatever_attempt() -> None:
    sealed = batch()
    again = cut_again(sealed.raw, sealed.item, 4)
    blocks = {n: (again if n % 2 else sealed.blocks)[n] for n in range(len(sealed.blocks))}
    assert raw_of(dict(reversed(blocks.items()))) == sealed.raw
    assert frames_of(sealed.raw) == [
        sealed.raw[place.byte_start : place.byte_start + place.byte_len] for place in sealed.item.blocks
    ]


def test_a_raw_file_is_not_made_without_all_blocks() -> None:
    sealed = batch()
    blocks = dict(enumerate(sealed.blocks))
    del blocks[2]
    with pytest.raises(RepairRefused, match=rf"blocks \[2\] of {len(sealed.blocks)}"):
        raw_of(blocks)
    with pytest.raises(RepairRefused, match="no block"):
        raw_of({})


def test_blocks_that_do_not_follow_each_other_are_refused() -> None:
    one, other = batch(60), batch(90)
    with pytest.raises(RepairRefused, match="follows"):
        raw_of(dict(enumerate([one.blocks[0], *other.blocks[1 : len(one.blocks)]])))


def test_bytes_behind_a_frame_are_no_frame() -> None:
    with pytest.raises(FrameInvalid, match="byte 9"):
        frames_of(zstandard.ZstdCompressor().compress(b"")[:9] + b"junk")
