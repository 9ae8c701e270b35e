"""The index's format and keys, and raw files read without their registry items."""

import pytest

from app.core.formats import object_keys
from app.core.formats.batch import new_batch_id, seal
from app.core.formats.block import BlockHeader, decode_header, frame_of
from app.core.formats.id_index import (
    Counts,
    IdsOfBatch,
    build,
    decode_segment,
    digest_in,
    encode_segment,
    hash_of_event,
    hash_of_view,
)
from app.core.formats.raw_file import LineIds, frames_in, ids_in
from app.errors import FormatInvalid, FrameInvalid, NewerFormat
from tests.builders.events import NOW_MS, event, parse
from tests.builders.events import text as sent

BATCH = new_batch_id(NOW_MS, bytes(10))


def test_an_event_and_a_page_view_of_one_id_differ() -> None:
    assert hash_of_event("a") != hash_of_view("a")


def test_a_segment_has_an_entry_for_each_id() -> None:
    segment = build([IdsOfBatch(BATCH, ["e1", None, "e2"], ["v1", "v1", None])])
    assert segment.counts == Counts(1, 2, 2)
    data = encode_segment(segment)
    key = object_keys.segment_key("dt=2025-06-15/hour=15", digest_in(data), segment.counts)
    assert object_keys.segment_place(key) == (key, "dt=2025-06-15/hour=15", segment.counts)
    assert object_keys.hour_of(key) == "dt=2025-06-15/hour=15"


def test_a_damaged_segment_and_a_newer_one_are_refused() -> None:
    data = encode_segment(build([IdsOfBatch(BATCH, ["e1"], ["v1"])]))
    for damaged in (b"", data[:-1], data[:10], data + b"\0", data[:-3] + b"abc", b"IDX" + data[4:]):
        with pytest.raises(FormatInvalid):
            decode_segment(damaged)
    with pytest.raises(NewerFormat):
        decode_segment(b"IDX2" + data[4:])
    with pytest.raises(NewerFormat):
        object_keys.segment_place("index/dt=2025-06-15/hour=15/0000000000000000-1-1-1.v2.ids")


@pytest.mark.parametrize("key", ["index/dt=2025-06-15/hour=15/settled", "raw/x", "index/1-1-1.v1.ids", "raw/dt=1/hour=1/a"])
def test_foreign_keys_are_no_segments_and_no_raw_files(key: str) -> None:
    assert object_keys.segment_place(key) is None
    assert object_keys.raw_place(key) is None


def test_a_raw_key_names_its_hour_and_batch() -> None:
    key = object_keys.raw_key(BATCH, NOW_MS)
    assert object_keys.raw_place(key) == ("dt=2025-06-15/hour=15", BATCH)


def test_the_frames_of_a_raw_file_are_its_blocks() -> None:
    lines = [parse(sent(event(event_id=f"e{n}", page_view_id=f"v{n % 7}"))) for n in range(50)] + [parse(b"{oops")]
    sealed = seal(BATCH, 1, 4, lines)
    frames = list(frames_in(sealed.raw))
    assert [(frame.byte_start, frame.byte_len) for frame in frames] == [
        (place.byte_start, place.byte_len) for place in sealed.item.blocks
    ]
    headers = [decode_header(block) for block in sealed.blocks]
    assert all(isinstance(header, BlockHeader) for header in headers)
    cut = [sealed.raw[frame.byte_start :][: frame.byte_len] for frame in frames]
    assert cut == [frame_of(block) for block in sealed.blocks]
    ids = [each for frame in frames for each in ids_in(frame.text)]
    assert {each.event_id for each in ids} == {None, *(f"e{n}" for n in range(50))}


@pytest.mark.parametrize("raw", [b"no frame", b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd" + bytes(40)])
def test_bytes_that_are_no_raw_file_are_refused(raw: bytes) -> None:
    with pytest.raises(FrameInvalid):
        list(frames_in(raw))
    whole = seal(BATCH, 1, 1, [parse(b"{oops")]).raw
    with pytest.raises(FrameInvalid):
        list(frames_in(whole + raw))
    with pytest.raises(FrameInvalid):
        list(frames_in(whole[:-3]))


def test_lines_keep_their_numbers_beside_unreadable_ones() -> None:
    e1 = b'{"event_id":"e1","page_view_id":"v1"}'
    text = b"\n".join([e1, b"", b'{"event_id":5}', b"\xff", e1, b""])
    known = LineIds("e1", "v1")
    assert ids_in(text) == [known, LineIds(), LineIds(), LineIds(), known]
