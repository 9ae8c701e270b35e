"""Batches: ids, blocks, the raw file and cutting it again."""

import json
import uuid
import zlib

import msgspec
import pytest

from app.core.formats.batch import MAX_BATCH_LINES, batch_time_ms, cut_again, new_batch_id, partition_of, seal
from app.core.formats.block import MAX_FRAME_BYTES, MAX_RAW_BYTES, decode_header, frame_of, open_frame
from app.core.formats.stored_line import StoredLine
from app.errors import FormatInvalid, FrameInvalid
from tests.builders.events import NOW_MS, event, parse, text

BATCH = new_batch_id(NOW_MS, bytes(10))


def lines(count: int, size: int = 20, key: bytes | None = None) -> list[StoredLine]:
    return [
        StoredLine(b'{"received_at":%d,"x":"%s"}' % (NOW_MS + n, b"x" * size), key or b"k%d" % n, True, None, NOW_MS + n)
        for n in range(count)
    ]


def noise(count: int, size: int) -> list[StoredLine]:
    """Lines that do not compress."""
    made = []
    for n in range(count):
        state, out = zlib.crc32(b"%d" % n), bytearray()
        while len(out) < size:
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            out += (state >> 11).to_bytes(8).hex().encode()[2:]
        made.append(StoredLine(b'{"received_at":%d,"x":"%s"}' % (NOW_MS, out), b"k", True, None, NOW_MS))
    return made


def test_an_id_is_a_uuid7_that_sorts_by_time_and_within_a_millisecond():
    first = new_batch_id(NOW_MS, b"\xff" * 9 + b"\x00")
    assert uuid.UUID(first).version == 7
    assert uuid.UUID(first).variant == uuid.RFC_4122
    assert batch_time_ms(first) == NOW_MS
    second = new_batch_id(NOW_MS, bytes(10), first)
    third = new_batch_id(NOW_MS, bytes(10), second)
    assert first < second < third < new_batch_id(NOW_MS + 2, bytes(10))
    assert uuid.UUID(second).version == uuid.UUID(third).version == 7
    assert batch_time_ms(new_batch_id(NOW_MS - 10, bytes(10), first)) == NOW_MS - 10
    greatest = new_batch_id(NOW_MS, b"\xff" * 10)
    assert greatest < new_batch_id(NOW_MS, bytes(10), greatest)


def test_a_partition_is_the_crc32_of_the_key():
    assert [partition_of(key, 32) for key in (b"p1", b"", b"\xff")] == [zlib.crc32(b"p1") % 32, 0, zlib.crc32(b"\xff") % 32]


def test_first_second_and_duplicate_meet_in_one_block():
    sent = [text(event()), text(event("engagement", event_id="e2")), text(event()), text(event("ad_click", event_id="e3"))]
    batch = seal(BATCH, 1, 32, [parse(line) for line in sent])
    assert [place.lines for place in batch.item.blocks] == [4]


def test_the_raw_file_is_the_frames_and_the_item_says_where():
    batch = seal(BATCH, 3, 4, lines(500))
    item = batch.item
    assert (item.batch_id, item.epoch, item.line_count, item.byte_count) == (BATCH, 3, 500, len(batch.raw))
    assert item.raw_key == f"raw/dt=2025-06-15/hour=15/{BATCH}.ndjson.zst"
    assert item.received_at_ms == NOW_MS
    assert len(item.blocks) == len(batch.blocks) == 4
    for number, (place, block) in enumerate(zip(item.blocks, batch.blocks, strict=True)):
        header, frame = decode_header(block), frame_of(block)
        assert frame == batch.raw[place.byte_start : place.byte_start + place.byte_len]
        assert (header.block, header.blocks_in_batch, header.attempt, header.epoch) == (number, 4, 0, 3)
        assert (header.first_line, header.lines, header.partition) == (place.first_line, place.lines, place.partition)
        received = [json.loads(line)["received_at"] for line in open_frame(frame).splitlines()]
        assert header.received_at_ms == min(received)
        assert received == sorted(received)


@pytest.mark.parametrize("content", [lines(50, 60_000, b"k"), noise(30, 50_000)])
def test_a_partition_is_cut_into_blocks_within_both_limits(content):
    batch = seal(BATCH, 1, 1, content)
    frames = [frame_of(block) for block in batch.blocks]
    assert len(frames) > 1
    assert all(len(frame) <= MAX_FRAME_BYTES and len(open_frame(frame)) <= MAX_RAW_BYTES for frame in frames)
    assert b"".join(map(open_frame, frames)) == b"".join(line.data + b"\n" for line in content)


def test_the_longest_stored_line_fits_a_block():
    worst = parse(b"\xff" + b"\x01" * 65_535)
    assert len(worst.data) > 400_000
    assert len(seal(BATCH, 1, 1, [worst] * 3).blocks) == 2


@pytest.mark.parametrize("count", [0, MAX_BATCH_LINES + 1])
def test_a_batch_has_bounds(count):
    with pytest.raises(ValueError, match="lines"):
        seal(BATCH, 1, 1, lines(1) * count)


def test_cutting_again_gives_the_same_envelopes_but_for_the_attempt():
    batch = seal(BATCH, 1, 4, lines(100))
    assert cut_again(batch.raw, batch.item, 0) == batch.blocks
    for again, before in zip(cut_again(batch.raw, batch.item, 7), batch.blocks, strict=True):
        assert decode_header(again) == msgspec.structs.replace(decode_header(before), attempt=7)
        assert frame_of(again) == frame_of(before)


def test_another_file_is_not_cut():
    batch = seal(BATCH, 1, 4, lines(100))
    for raw in (batch.raw[:-1], batch.raw + b"x", b"\x00" + batch.raw[1:]):
        with pytest.raises(FormatInvalid, match="not the file"):
            cut_again(raw, batch.item, 1)


def test_ranges_that_do_not_cover_the_file_are_refused():
    batch = seal(BATCH, 1, 4, lines(100))
    places = batch.item.blocks
    for blocks in (places[1:], places[:-1], [*places, places[0]]):
        with pytest.raises(FormatInvalid, match=r"follow|cover"):
            cut_again(batch.raw, msgspec.structs.replace(batch.item, blocks=blocks), 1)
    shifted = [msgspec.structs.replace(places[0], lines=places[0].lines + 1)]
    with pytest.raises(FrameInvalid, match="does not hold"):
        cut_again(batch.raw, msgspec.structs.replace(batch.item, blocks=shifted), 1)
