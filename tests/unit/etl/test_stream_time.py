"""Stream time is the lowest mark, never goes back, never passes the broker's clock (rules T4, T5)."""

from typing import Any

import msgspec
import pytest

from app.core.etl.meta import EtlMeta, decode_meta, encode_meta
from app.core.etl.stream_time import ShardWatermarks, moved_time
from app.core.formats.block import End, WatermarkMessage
from app.core.join.join_order import Due
from app.errors import NewerFormat, StepMessageInvalid

LATE = 10**9


def announced(
    *controls: WatermarkMessage | End | tuple[WatermarkMessage | End, int], now: int = 0
) -> tuple[int, ShardWatermarks]:
    """Stream time after some messages, each with an append time or one far ahead."""
    shards = ShardWatermarks()
    for each in controls:
        control, append_ms = each if isinstance(each, tuple) else (each, LATE)
        shards.observe(control)
        now = moved_time(now, shards, append_ms)
    return now, shards


def watermarks(listed: dict[str, list[str]] | None = None, **values: int) -> WatermarkMessage:
    return WatermarkMessage(values, {**{shard: [] for shard in values}, **(listed or {})})


@pytest.mark.parametrize(("controls", "expected"), [
    ([], 0),
    ([watermarks(a=50, b=70)], 50),
    ([watermarks(a=50), watermarks(b=40)], 50),
    ([watermarks(a=50), watermarks(a=30)], 50),
    ([watermarks({"b": []}, a=50)], 0),
    ([watermarks(a=50), watermarks({"b": []}, a=60)], 50),
    ([watermarks({"b": []}, a=50), watermarks(b=45)], 45),
    ([(watermarks(a=50), 20)], 20),
    ([(watermarks(a=50), 20), (watermarks(), 45)], 45),
    ([watermarks(a=50, b=70), End("a")], 70),
    ([watermarks(a=50), End("a")], 50),
    ([watermarks(a=50), End("a"), watermarks(a=60)], 50),
    ([watermarks(a=50, b=70), End("a"), watermarks({"a": []}, b=80)], 80),
    ([End("a"), watermarks({"a": []}, b=80)], 80),
    ([watermarks(a=50, b=90), watermarks({"c": ["a"]}, b=90)], 50),
    ([watermarks(a=50, b=90), watermarks({"c": ["a", "b"]}), End("a")], 50),
    ([watermarks(a=50, b=90), watermarks({"c": ["a", "b"]}), End("a"), watermarks(c=60)], 60),
    ([watermarks(a=50, b=90), watermarks({"c": ["a", "gone"]}), End("a")], 50),
    ([watermarks({"c": ["gone"]}, a=50)], 0),
    ([watermarks(a=50, b=70), WatermarkMessage({}, {}, ["a"])], 70),
    ([watermarks(a=50, b=70), WatermarkMessage({}, {"a": []}, ["a"])], 70),
], ids=str)  # fmt: skip
def test_stream_time(controls: list[Any], expected: int) -> None:
    assert announced(*controls)[0] == expected


def test_a_copy_is_independent() -> None:
    _, shards = announced(watermarks(a=50))
    copy = shards.copy()
    copy.observe(End("a"))
    copy.observe(watermarks(b=1))
    assert shards == ShardWatermarks({"a": 50}, {"a": []}, [])


def test_behind_a_gap_a_shard_whose_end_is_gone_holds_time_no_more() -> None:
    now, shards = announced(watermarks(a=50, b=70), End("z"))
    behind = shards.behind_a_gap()  # the END of a was in it
    assert behind.lowest() is None
    assert shards.lowest() == 50
    behind.observe(watermarks({"c": ["a"], "z": []}, b=90))
    assert moved_time(now, behind, LATE) == 50  # c starts where its parent was
    behind.observe(watermarks(c=95))
    assert moved_time(now, behind, LATE) == 90
    behind.observe(watermarks({"a": []}, c=99))  # from a worker that has not heard of the end yet
    assert moved_time(now, behind, LATE) == 50
    behind.observe(WatermarkMessage({"c": 99}, {"c": []}, ["a"]))
    assert moved_time(now, behind, LATE) == 90


def test_meta_goes_round() -> None:
    meta = EtlMeta(stream_time_ms=50, shards=announced(watermarks({"b": ["a"]}, a=50), End("z"))[1], closed=Due(49, 1, "e1"))
    assert decode_meta(encode_meta(meta)) == meta
    assert decode_meta(None) == EtlMeta()
    assert decode_meta(encode_meta(meta)).closed.event_id == "e1"


@pytest.mark.parametrize("packed", [b"", b"\xc1", encode_meta(EtlMeta(version=0))])
def test_meta_of_another_form_is_refused(packed: bytes) -> None:
    with pytest.raises(StepMessageInvalid):
        decode_meta(packed)


def test_meta_of_a_newer_version_is_told_from_one_that_cannot_be_read() -> None:
    newer = msgspec.msgpack.encode({"version": 2, "stream_time_ms": "another form"})
    with pytest.raises(NewerFormat, match="meta of version 2, this reader knows versions up to 1"):
        decode_meta(newer)


def test_a_field_that_the_reader_would_drop_makes_meta_newer() -> None:
    fields = msgspec.msgpack.decode(encode_meta(EtlMeta()))
    with pytest.raises(NewerFormat, match="'later'"):
        decode_meta(msgspec.msgpack.encode({**fields, "later": 1}))
