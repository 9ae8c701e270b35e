"""What any version wrote is read for ever, and nobody changes what is written without raising its version (rule E10).

`tests/corpus/README.md` says what to do where a test of these fails.
"""

from typing import Any

import pytest

from app.errors import NewerFormat
from tests.corpus.formats import FORMATS, Format
from tests.corpus.plain import plain
from tests.corpus.samples import Sample, read_samples, write_sample

SAMPLES = read_samples()
WRITTEN = [made for made in FORMATS.values() if made.write is not None]


def agrees(found: Any, told: Any) -> bool:
    """Whether everything that is told was found; what came to the format later may be there besides."""
    if isinstance(told, dict):
        return isinstance(found, dict) and all(name in found and agrees(found[name], value) for name, value in told.items())
    if isinstance(told, list):
        return isinstance(found, list) and len(found) == len(told) and all(map(agrees, found, told))
    return type(found) is type(told) and bool(found == told)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.file)
def test_what_was_written_once_is_read_for_ever(sample: Sample) -> None:
    found = plain(FORMATS[sample.format].value_in(sample.data, sample.version))
    assert agrees(found, sample.value), found


@pytest.mark.parametrize("made", FORMATS.values(), ids=lambda made: made.name)
def test_every_version_has_a_sample(made: Format) -> None:
    versions = {sample.version for sample in SAMPLES if sample.format == made.name}
    assert versions == set(range(1, made.version + 1)), "python -m tests.corpus.add writes what is missing"


@pytest.mark.parametrize("made", WRITTEN, ids=lambda made: made.name)
def test_what_is_written_is_what_the_sample_of_its_version_says(made: Format) -> None:
    assert made.write is not None
    (sample,) = [s for s in SAMPLES if (s.format, s.version) == (made.name, made.version) and ":" not in s.about]
    assert made.told(made.write()) == made.told(sample.data), "raise the version of what is written"


def test_there_is_no_sample_of_a_format_that_is_gone() -> None:
    assert {sample.format for sample in SAMPLES} <= FORMATS.keys()


def test_a_sample_is_never_written_over() -> None:
    with pytest.raises(FileExistsError):
        write_sample(SAMPLES[0])


NEWER = {
    "block": (b"\x01", b"\x02"),
    "watermark_message": (b"\x81", b"\x82"),
    "end": (b"\x81\x92\xa3end", b"\x81\x92\xa4end2"),
    "checkpoint": (b"\xa2at", b"\xa3at2"),
    "barrier": (b"\xa7barrier", b"\xa8barrier2"),
    "dead_letter": (b'"version":1', b'"version":2'),
    "registry_item": (b'"version":{"N":"1"}', b'"version":{"N":"2"}'),
    "step_message": (b"STP1", b"STP2"),
    "etl_meta": (b"\xa7version\x01", b"\xa7version\x02"),
    "transaction_record": (b'"version":1', b'"version":2'),
    "ready": (b'"version":1', b'"version":2'),
}
"""What a newer version changes at least; everything else of it may be other than anything that is known today."""


def sample_of(name: str) -> Sample:
    return next(sample for sample in SAMPLES if sample.format == name and ":" not in sample.about)


@pytest.mark.parametrize("name", NEWER)
def test_a_newer_version_is_told_from_bytes_that_cannot_be_read(name: str) -> None:
    old, new = NEWER[name]
    data = sample_of(name).data
    assert data.count(old) >= 1
    with pytest.raises(NewerFormat, match=r"version 2, this reader knows versions up to 1"):
        FORMATS[name].read(data.replace(old, new, 1))


def longer(data: bytes, at: int) -> bytes:
    """The msgpack array at a place with one more element."""
    head = data[at]
    grown = bytes([head + 1]) if head < 0x9F else b"\xdc" + (head - 0x90 + 1).to_bytes(2)
    return data[:at] + grown + data[at + 1 :] + b"\xc0"


ARRAYS = {"watermark_message": 1, "end": 1, "checkpoint": 0, "barrier": 0, "step_message": 4, "store_position": 0}
"""Where in a sample the array begins."""


@pytest.mark.parametrize(("name", "at"), ARRAYS.items())
def test_a_field_that_a_reader_would_drop_makes_an_array_newer(name: str, at: int) -> None:
    with pytest.raises(NewerFormat, match=r"with \d+ fields, this reader knows \d+"):
        FORMATS[name].read(longer(sample_of(name).data, at))
