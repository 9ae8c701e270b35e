"""Whatever the lines: each is in one block, in its partition, and the raw file gives the same blocks again."""

import io
from collections import Counter

import msgspec
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.formats.batch import cut_again, new_batch_id, partition_of, seal
from app.core.formats.block import decode_header, frame_of, open_frame
from tests.builders.events import NOW_MS, parse

REDIRECT = b'{"event_id":"%s","event_type":"redirect","occurred_at":1000000000000}'
line = st.builds(
    lambda raw, event_id, late: parse(raw or REDIRECT % event_id, received_at_ms=NOW_MS + late),
    st.none() | st.binary(max_size=30),
    st.sampled_from([b"a", b"b", b"c", b"d", b"e"]),
    st.integers(0, 5),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(line, min_size=1, max_size=60), st.integers(1, 8), st.binary(min_size=10, max_size=10))
def test_a_sealed_batch_holds_each_line_once_in_its_partition(lines, partitions, random):
    batch = seal(new_batch_id(NOW_MS, random), 1, partitions, lines)
    whole = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(batch.raw), read_across_frames=True).read()
    assert Counter(whole.splitlines()) == Counter(line.data for line in lines)
    number = 0
    for block in batch.blocks:
        header = decode_header(block)
        expected = [line for line in lines if partition_of(line.key, partitions) == header.partition]
        assert open_frame(frame_of(block)).split(b"\n") == [*(line.data for line in expected), b""]
        assert header.received_at_ms == min(line.received_at_ms for line in expected)
        assert (header.first_line, header.lines) == (number, len(expected))
        number += header.lines
    assert number == batch.item.line_count == len(lines)
    assert cut_again(batch.raw, batch.item, 0) == batch.blocks
    again = [decode_header(block) for block in cut_again(batch.raw, batch.item, 3)]
    assert again == [msgspec.structs.replace(decode_header(block), attempt=3) for block in batch.blocks]
