"""Whatever the bytes are, a reader gives a value or its format's own error, and takes no memory by their word (E10)."""

import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.corpus.formats import FORMATS, Format
from tests.corpus.samples import read_samples

SAMPLES: dict[str, list[bytes]] = {}
for _sample in read_samples():
    SAMPLES.setdefault(_sample.format, []).append(_sample.data)
ALIKE = {f"rows.{flow}" for flow in ("ad_impressions", "ad_clicks", "redirects", "engagements", "rejected")} | {
    f"file.{output}" for output in ("redirects", "replays", "dead_letters")
}
"""Formats that differ from others in their columns only."""
DAMAGED = [made for name, made in FORMATS.items() if name not in ALIKE]
PLACES = 300
"""Of a sample, at most, that are damaged one after the other."""
DEPTH = 10_000
NESTED = (b"[" * DEPTH, b'{"a":' * DEPTH, b"\x91" * DEPTH, b"\x81\xa1a" * DEPTH)
LENGTHS = (
    b"\xff" * 4,
    b"\xff\xff\xff\x7f",
    b"\x7f\xff\xff\xff",
    b"\xff" * 7 + b"\x7f",
    bytes(5) + b"\x40" + bytes(2),
    b"\x40" + bytes(7),
)
"""Lengths of gigabytes and more, in either order of the bytes."""
HEADS = (b"\xc6", b"\xc9", b"\xdb", b"\xdd", b"\xdf")
"""What in msgpack says that a length of 4 bytes follows."""
READ_BYTES = 512 * 1024 * 1024
"""Address space that reading may take beyond what the process has: polars reserves some for each of its threads."""


def read(made: Format, data: bytes) -> None:
    """Read; the test fails with whatever is none of the format's own errors."""
    with suppress(*made.errors):
        made.read(data)


def some_places(data: bytes, chance: random.Random) -> list[int]:
    """Places in a sample: all of them, if they are few."""
    return chance.sample(range(len(data)), min(len(data), PLACES))


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """A sample with some bits flipped, pieces cut out, doubled, put in or replaced, or cut off."""
    data = bytearray(draw(st.sampled_from(SAMPLES[name])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(1, 8))
        match draw(st.sampled_from(["flip", "cut off", "cut out", "insert", "replace", "double", "length", "nest"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut off":
                del data[at:]
            case "cut out":
                del data[at : at + length]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "replace":
                data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
            case "double":
                data[at:at] = data[at : at + 8 * length]
            case "length":
                huge = draw(st.sampled_from(LENGTHS))
                data[at : at + len(huge)] = huge
            case "nest":
                data[at:at] = draw(st.sampled_from(NESTED))
    return bytes(data)


@pytest.mark.parametrize("made", DAMAGED, ids=lambda made: made.name)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_damaged_bytes_end_in_the_formats_own_errors(made: Format, data: st.DataObject) -> None:
    read(made, data.draw(damaged(made.name)))


@pytest.mark.parametrize("made", DAMAGED, ids=lambda made: made.name)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=200))
def test_bytes_of_anybody_end_in_the_formats_own_errors(made: Format, data: bytes) -> None:
    read(made, data)
    for sample in SAMPLES[made.name][:1]:
        read(made, sample[: len(data)] + data)


@pytest.mark.parametrize("made", DAMAGED, ids=lambda made: made.name)
def test_every_byte_of_a_sample_may_be_another(made: Format) -> None:
    """One changed byte in a transaction record once ended the delivery of every partition."""
    chance = random.Random(made.name)
    (data, *_) = SAMPLES[made.name]
    for at in some_places(data, chance):
        read(made, data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :])
        read(made, data[:at])


# --- lengths that lie: in a process that has no more memory than it is given


def lying(name: str) -> Iterator[bytes]:
    """A sample with a huge length wherever one may stand."""
    (data, *_) = SAMPLES[name]
    for at in some_places(data, random.Random(name)):
        for huge in LENGTHS:
            yield data[:at] + huge + data[at + len(huge) :]
        for head in HEADS:
            yield data[:at] + head + LENGTHS[0] + data[at + 5 :]


def read_lies(names: list[str]) -> None:
    """What the process with little memory does."""
    for made in (FORMATS[name] for name in names):
        for sample in SAMPLES[made.name]:
            read(made, sample)  # what a first call takes for itself
    held = next(
        int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line
    )
    resource.setrlimit(resource.RLIMIT_AS, (held + READ_BYTES, held + READ_BYTES))
    for name in names:
        for data in lying(name):
            read(FORMATS[name], data)


@pytest.mark.parametrize("part", range(2))
def test_a_length_that_lies_takes_no_memory(part: int) -> None:
    """A MemoryError is none of a format's errors; an abort of the process is none either."""
    names = sorted(made.name for made in DAMAGED)[part::2]
    script = f"from tests.property.test_decoders import read_lies; read_lies({names!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
