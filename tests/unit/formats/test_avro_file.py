"""An Avro file has the blocks that fastavro would cut, and a marker that its records alone decide."""

import io
from itertools import accumulate
from typing import Any

import fastavro
import pytest

from app.core.formats.avro_file import avro_file
from app.core.formats.avro_schema import schema_of


def records(flow: str, count: int) -> list[dict[str, Any]]:
    empty = dict.fromkeys(field["name"] for field in schema_of(flow)["fields"])
    return [{**empty, "batch_id": "b" * (7 * n % 3000), "line": n} for n in range(count)]


def file_of(flow: str, made: list[dict[str, Any]]) -> bytes:
    packed = []
    for record in made:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema_of(flow), record)
        packed.append(out.getvalue())
    return avro_file(flow, memoryview(b"".join(packed)), [*accumulate(map(len, packed))])


@pytest.mark.parametrize("flow", ["ad_clicks", "rejected"])
@pytest.mark.parametrize("count", [0, 1, 5, 60])
def test_blocks_are_those_that_fastavro_cuts(flow: str, count: int) -> None:
    made = records(flow, count)
    body, reference = file_of(flow, made), io.BytesIO()
    codec = fastavro.block_reader(io.BytesIO(body)).codec
    fastavro.writer(reference, schema_of(flow), made, codec=codec)
    blocks = list(fastavro.block_reader(io.BytesIO(body)))
    wanted = list(fastavro.block_reader(io.BytesIO(reference.getvalue())))
    assert [(block.num_records, block.bytes_.getvalue()) for block in blocks] == [
        (block.num_records, block.bytes_.getvalue()) for block in wanted
    ]
    assert list(fastavro.reader(io.BytesIO(body))) == made
    if codec == "null" and count:
        assert len(body) == len(reference.getvalue())


def test_the_marker_is_a_digest_of_the_records() -> None:
    one, two = file_of("rejected", records("rejected", 2)), file_of("rejected", records("rejected", 3))
    assert one == file_of("rejected", records("rejected", 2))
    assert one[-16:] != two[-16:]
    assert one.count(one[-16:]) == 2  # behind the header, and behind the only block
