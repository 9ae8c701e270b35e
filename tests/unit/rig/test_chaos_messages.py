"""Chaos may put its foreign and damaged messages among ours only if no reader takes one of them for ours."""

import pytest

from app.errors import FormatInvalid
from tests.corpus.formats import FORMATS
from tests.corpus.samples import read_samples
from tests.rig.chaos.messages import FOREIGN

ON_TOPICS = ("block", "watermark_message", "end", "checkpoint", "barrier", "dead_letter", "step_message", "ready")


@pytest.mark.parametrize("value", FOREIGN, ids=lambda value: repr(value[:12]))
def test_a_foreign_message_is_none_of_ours(value: bytes) -> None:
    for name in ON_TOPICS:
        with pytest.raises(FormatInvalid):
            FORMATS[name].read(value)


@pytest.mark.parametrize("sample", [each for each in read_samples() if each.format in ON_TOPICS], ids=lambda each: each.file)
def test_half_a_message_is_none_of_ours(sample) -> None:
    with pytest.raises(FormatInvalid):
        FORMATS[sample.format].read(sample.data[: len(sample.data) // 2])
