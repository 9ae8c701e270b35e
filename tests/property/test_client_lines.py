"""The kernels read a request as the plain path does: the same bytes, reasons, partitions and refusals, for any body."""

import gzip
import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.collector.requests import BodyLimits, RequestBody
from app.core.events import client_lines
from app.core.events.client_lines import Bounds, LineReader
from tests.builders.client_bodies import NOW_MS, NUMBERS, TEXTS, event_text, request_body
from tests.builders.events import event, text
from tests.worlds.read_bodies import LIMITS, outcome

READER = LineReader(0)
NDJSON = "application/x-ndjson"


def sent(body: bytes, content_type: str = NDJSON, kind: str = "browser") -> RequestBody:
    return RequestBody(body, content_type, kind, NOW_MS, "203.0.113.9", "Mozilla/5.0 ü")


def same(request: RequestBody, limits: BodyLimits = LIMITS) -> tuple:
    plain = outcome(request, None, limits)
    assert outcome(request, READER, limits) == plain
    return plain


def in_doubt(request: RequestBody) -> int | None:
    """How many lines the kernels leave; None if they leave the body."""
    read = READER.read(request.content_type, request.body, request.sender, Bounds(10_000, 10**9, lambda _: None))
    return None if read is None else len(read.doubts)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**40), st.sampled_from([LIMITS, LIMITS, BodyLimits(16 * 1024**2, 2)]))
def test_any_request_has_one_outcome(seed, limits):
    same(request_body(Random(seed)), limits)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["browser", "server"]), st.sampled_from(TEXTS) | st.sampled_from(NUMBERS) | st.booleans() | st.none())
def test_any_value_of_any_field_has_one_outcome(kind, value):
    fields = ("event_id", "page_view_id", "occurred_at", "url", "title", "screen_width", "webdriver", "ip", "user_agent")
    odd = [text(event(**{name: value})) for name in (*fields, "currency", "dwell_ms", "properties", "new")]
    same(sent(b"\n".join(odd), kind=kind))
    same(sent(b"\n".join(text(event(properties={"k": value, "l": [value, {"m": value}]})) for _ in range(2)), kind=kind))


@settings(max_examples=200, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=6) | st.decimals(allow_nan=False, allow_infinity=False))
def test_any_number_in_properties_has_one_text(number):
    same(sent(text(event()).replace(b"{", b'{"properties":{"k":%s},' % f"{number:f}"[:40].encode(), 1)))


def test_events_that_keep_every_rule_are_left_to_no_other_reader():
    chance = Random(1)
    lines = [event_text(chance) for _ in range(400)]
    request = sent(b"\n".join(lines), kind="server")
    assert in_doubt(request) < 200, "the builder makes much that is unusual"
    odd = event(title='Grün & "quer"', properties={"a": [1, {"b": None}], "c": 0.25}, new={"x": "ü"}, dwell_ms=7)
    usual = [json.dumps(odd, ensure_ascii=n % 2 == 0) for n in range(10)]
    for request in (sent("\n".join(usual).encode()), sent(f"[{','.join(usual)}]".encode(), "text/plain")):
        assert in_doubt(request) == 0
        same(request)


@pytest.mark.parametrize("body", [
    b"", b"\n\n", b"\r\n", b"[]", b"[ ]", b"{}", b"[{}]", b"[{},]", b"[,{}]", b"{", b"[{]}", b"[{}]x", b"{}{}",
    b"\xef\xbb\xbf", b"null", b"\xff",
    b"[1]", b'{"a":"}"}', b'[{"a":"]"}]', b'[{"a":"\\"}"}]', b"\0", b"[[{}]]", b" [{}] ", b" {}\n{}", b'{"a":1}\n\n[',
])  # fmt: skip
@pytest.mark.parametrize(
    "content_type", [NDJSON, "application/json", "text/plain", "text/plain; charset=utf-8", "text/html"]
)
def test_odd_bodies_have_one_outcome(body, content_type):
    same(sent(body, content_type))
    same(sent(body.replace(b"{}", text(event())), content_type))


@pytest.mark.parametrize("limits", [LIMITS, BodyLimits(16 * 1024**2, 100), BodyLimits(10_000, 10_000)])
def test_limits_refuse_the_same_requests(limits):
    good, bad, mended = text(event()), b"x", text(event(occurred_at="2025-06-15"))
    for line in (good, bad, mended, b"[" * 500):
        for count in (99, 100, 101, 2000):
            body = b"\n".join([line] * count)
            same(sent(body), limits)
            same(sent(gzip.compress(body, mtime=0)), limits)
            same(sent(b"[" + b",".join([line] * count) + b"]", "application/json"), limits)


def test_bodies_of_many_pieces_have_one_outcome(monkeypatch):
    lines = [text(event(event_id=f"e{n}", section="s" * (n % 120))) for n in range(3000)]
    same(sent(b"\n".join(lines)))
    same(sent(b"\r\n".join(lines) + b"\n"))
    lines[700] = lines[1400] = b"{"
    lines[2000] = b'{"long":"%s"}' % (b"x" * 300_000)
    same(sent(b"\n".join(lines)))
    same(sent(b"\n".join([b"y" * 200_000, *lines, b"y" * 140_000 + b"\r"])))
    monkeypatch.setattr(client_lines, "CHUNK_BYTES", 1000)
    same(sent(b"\n".join(lines)))


def test_a_long_line_that_grows_is_written_whole():
    quotes = {"k": '"' * 7000, "l": ["\\" * 1000]}
    assert same(sent(b"\n".join([text(event(properties=quotes))] * 60)))[4] == 0
    deep: object = 1
    for _ in range(20):
        deep = {"d": deep}
    same(sent(text(event(properties=deep))))
    same(sent(text(event(properties={f"k{n}": n for n in range(200)}))))
