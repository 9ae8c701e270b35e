"""Bodies cut into lines."""

import gzip
import json
import zlib

import pytest

from app.core.events.gzip_body import MAX_GZIP_MEMBERS, gunzip, is_gzip
from app.core.events.request_body import WorkLimit, count_values, split_body
from app.errors import RequestRejected

JSON = "application/json"
NDJSON = "application/x-ndjson"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def refused(content_type: str, body: bytes, max_lines: int = 10_000) -> tuple[int, str]:
    with pytest.raises(RequestRejected) as caught:
        split_body(content_type, body, max_lines)
    return caught.value.status, caught.value.code


@pytest.mark.parametrize("content_type", [NDJSON, "text/plain;charset=UTF-8", "Text/Plain", ""])
@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"a\nb", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"\n\n a \n\r\n\n", [b" a "]),
        (b"a\r\r\n\r\r\nb\rc", [b"a\r", b"\r", b"b\rc"]),
        (b'{"a":1}\n{"a":2}', [b'{"a":1}', b'{"a":2}']),
        (b'{"a":1}\n{"a":', [b'{"a":1}', b'{"a":']),
        (b'[{"a":1}]\n[{"a":2}]', [b'[{"a":1}]', b'[{"a":2}]']),
        (b'[{"a":1},\n{"a":2}', [b'[{"a":1},', b'{"a":2}']),
        (b'{"a":\n1}\n{"b":2}', [b'{"a":', b"1}", b'{"b":2}']),
        (b'{"a":\n"\xff"}', [b'{"a":', b'"\xff"}']),
        (b"[" * 3000 + b"\n" + b"]" * 3000, [b"[" * 3000, b"]" * 3000]),
        (b'"text"', [b'"text"']),
        (b"\xff\x00\n\xe2\x80\xa8\x0b\x0c", [b"\xff\x00", b"\xe2\x80\xa8\x0b\x0c"]),
    ],
)
def test_ndjson_is_cut_at_lf(content_type, body, lines):
    assert split_body(content_type, body) == lines
    assert split_body(content_type, BYTE_ORDER_MARK + body) == lines


@pytest.mark.parametrize("content_type", ["text/plain;charset=UTF-8", "Text/Plain", "", " ; charset=utf-8"])
@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b'[{"a":1},{"a":2}]', [b'{"a":1}', b'{"a":2}']),
        (b'[{"a":1},\n{"a":2}]\n', [b'{"a":1}', b'{"a":2}']),
        (b'\r\n{\n "a": "\\ud800",\n "b": [\n]\n}\n', [b'{\n "a": "\\ud800",\n "b": [\n]\n}']),
        (b' [{"a":1}] \n\t', [b'{"a":1}']),
        (b'{"a":1}', [b'{"a":1}']),
    ],
)
def test_a_text_that_is_one_json_document_is_read_as_json(content_type, body, lines):
    assert split_body(content_type, body) == split_body(JSON, body) == lines
    assert split_body(content_type, BYTE_ORDER_MARK + body) == split_body(JSON, BYTE_ORDER_MARK + body) == lines


def test_x_ndjson_is_never_read_as_a_document():
    assert split_body(NDJSON, b'[{"a":1},\n{"a":2}]') == [b'[{"a":1},', b'{"a":2}]']


def test_a_second_byte_order_mark_is_no_json():
    assert refused(JSON, BYTE_ORDER_MARK * 2 + b"{}") == (400, "invalid_json")


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b'{"a": 1}', [b'{"a": 1}']),
        (b' \n[ {"a": 1} ,\t{"a":"]},["}\r\n] ', [b'{"a": 1}', b'{"a":"]},["}']),
        (b'[1,"x",null,[],{}]', [b"1", b'"x"', b"null", b"[]", b"{}"]),
        (b'[{"a":"\\ud800"}, {"b":",\\"]"}]', [b'{"a":"\\ud800"}', b'{"b":",\\"]"}']),
        (b"[" + b"[" * 3000 + b"]" * 3000 + b", 1]", [b"[" * 3000 + b"]" * 3000, b"1"]),
        (b'[{"n":' + b"9" * 6000 + b'},{"a":"\\udc00"}]', [b'{"n":' + b"9" * 6000 + b"}", b'{"a":"\\udc00"}']),
    ],
)
def test_json_elements_keep_their_own_text(body, lines):
    assert split_body(JSON, body) == lines


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[", b"[1", b"[1,]", b"[,1]", b"[1,,2]", b"[1]]", b"[1] 2", b'{"a":1}{"b":2}', b"[NaN]", b'["\\ud800",NaN]',
        b'["\xff"]', b'{"a":"\xff"}', b"x", b'["\\ud800', b'["\\ud800",]', b'["\\ud800"}', b'["a\nb"]',
        b"[" * 5000, b"[{]", b'["\\ud800",{]',
    ],
)  # fmt: skip
def test_a_document_that_cannot_be_parsed_is_400(body):
    assert refused(JSON, body) == (400, "invalid_json")


@pytest.mark.parametrize("body", [b"1", b'"x"', b"null"])
def test_a_document_that_is_neither_object_nor_array_is_400(body):
    assert refused(JSON, body) == (400, "not_events")


@pytest.mark.parametrize(("content_type", "body"), [(JSON, b""), (JSON, b" [ ] "), ("text/plain", b"\r\n\n"), ("", b"[]")])
def test_no_event_at_all_is_400(content_type, body):
    assert refused(content_type, body) == (400, "empty")


@pytest.mark.parametrize("content_type", ["text/html", "application/octet-stream", "application/jsonp"])
def test_another_content_type_is_415(content_type):
    assert refused(content_type, b"{}") == (415, "unsupported_media_type")


@pytest.mark.parametrize(("content_type", "body"), [(JSON, b"[1,2,3]"), ("text/plain", b"1\n2\n3")])
def test_more_lines_than_allowed_is_413(content_type, body):
    assert len(split_body(content_type, body, 3)) == 3
    assert refused(content_type, body, 2) == (413, "too_many_lines")


def test_an_array_with_more_commas_than_its_lines_could_need_stops_at_the_limit():
    assert refused(JSON, b"[" + b"1," * 1_000_000 + b"1]", 100) == (413, "too_many_lines")
    wide = json.dumps([list(range(100))] * 3).encode()
    assert [json.loads(line) for line in split_body(JSON, wide, 3)] == [list(range(100))] * 3


def test_an_array_that_only_the_scanner_could_cut_has_a_bound():
    deep = b"[" * 3000 + b"]" * 3000
    assert split_body(JSON, b"[" + deep + b"," + deep + b"]", 100) == [deep, deep]
    assert refused(JSON, b"[" + deep + b",[" + b"[]," * 40_000 + b"0]]", 100) == (413, "too_complex")


def test_elements_around_lone_surrogates_keep_their_places():
    elements = [b'{"a": "\\ud800"}', b"{}", b'{"a": "\\u0020"}', b"{ }", b'"\\\\ud800"', b'"\\ud83d\\ude00"', b"1", b"11"]
    assert split_body(JSON, b"[ " + b" ,\n".join(elements) + b"]") == elements


def test_gunzip_reads_every_member_and_counts_what_it_takes():
    taken: list[int] = []
    text = bytes(range(256)) * 4000
    body = gzip.compress(text) + gzip.compress(b"tail")
    assert gunzip(body, len(text) + 4, taken.append) == text + b"tail"
    assert sum(taken) == len(text) + 4


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(b"x" * 100)[:-1],
        gzip.compress(b"x") + b"garbage",
        b"plain",
        zlib.compress(b"x"),
        gzip.compress(b"x" * 9999)[:20],
    ],
)
def test_a_broken_gzip_body_is_400(body):
    with pytest.raises(RequestRejected) as caught:
        gunzip(body, 10_000)
    assert (caught.value.status, caught.value.code) == (400, "invalid_gzip")


@pytest.mark.parametrize("body", [gzip.compress(b"x"), gzip.compress(b"x") + gzip.compress(b"")])
def test_zeros_behind_a_gzip_body_are_padding(body):
    assert gunzip(body + bytes(100_000), 10) == b"x"
    for garbage in (bytes(40) + b"x", bytes(40) + body):
        with pytest.raises(RequestRejected, match="not gzip"):
            gunzip(body + garbage, 10)


def test_gzip_is_known_by_its_first_bytes():
    assert is_gzip(gzip.compress(b""))
    assert not any(map(is_gzip, (b"", b"\x1f", b"{}", zlib.compress(b"x"))))


def test_a_bomb_is_413_before_it_is_whole_in_memory():
    taken: list[int] = []
    with pytest.raises(RequestRejected) as caught:
        gunzip(gzip.compress(bytes(50_000_000)), 1_000_000, taken.append)
    assert (caught.value.status, caught.value.code) == (413, "too_large")
    assert sum(taken) <= 1_000_000


MIB = 1024**2


@pytest.mark.parametrize(
    ("sent_bytes", "content_bytes", "units"),
    [(0, MIB, 4_000), (16 * 1024, MIB, 53_152), (100_000, 6_400_000, 304_000), (4 * MIB, 16 * MIB, 12_586_912)],
)
def test_the_work_of_a_request_grows_with_the_bytes_that_were_sent(sent_bytes, content_bytes, units):
    assert WorkLimit.of(sent_bytes, 16 * MIB) == (content_bytes, units)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, b"[" * MIB),
        (JSON, b"[" + b"[]," * 40_000 + b"0]"),
        (JSON, b'{"a":[' + b"1," * 80_000 + b"1]}"),
        ("text/plain", b"x\n" * 8_000),
        ("text/plain", b'{"a":[' + b"1," * 80_000 + b"1]}"),
    ],
)
def test_more_work_than_the_sent_bytes_allow_is_413(content_type, body):
    with pytest.raises(RequestRejected) as caught:
        split_body(content_type, body, max_units=WorkLimit.of(16 * 1024, MIB).units)
    assert (caught.value.status, caught.value.code) == (413, "too_complex")


def test_the_scanner_reads_no_more_tokens_than_the_work_allows():
    strings = b"[" * 3000 + b'"",' * 100 + b'""' * 60_000
    with pytest.raises(RequestRejected) as caught:
        split_body(JSON, strings, max_units=42_768)
    assert (caught.value.status, caught.value.code) == (413, "too_complex")


def test_an_uncompressed_body_of_events_is_far_below_its_limit():
    line = b'{"event_id":"1","event_type":"redirect","occurred_at":1}'
    body = b"\n".join([line] * 10_000)
    assert count_values(body) + 10 * 10_000 < WorkLimit.of(len(body), 16 * MIB).units / 6
    assert len(split_body("text/plain", body, max_units=WorkLimit.of(len(body), 16 * MIB).units)) == 10_000


def test_gzip_members_are_bounded_and_each_is_read_once():
    empty = gzip.compress(b"")
    assert gunzip(empty * MAX_GZIP_MEMBERS, 100) == b""
    with pytest.raises(RequestRejected) as caught:
        gunzip(empty * (MAX_GZIP_MEMBERS + 1), 100)
    assert (caught.value.status, caught.value.code) == (413, "too_complex")
    incompressible = gzip.compress(b"".join(n.to_bytes(8, "big") for n in range(100_000)), 0)
    assert gunzip(incompressible + gzip.compress(b"tail"), 10 * MIB)[-4:] == b"tail"


@pytest.mark.parametrize("count", [1000, 3000, 10_000])
def test_a_backlog_of_short_events_that_compresses_well_is_within_the_limit(count: int) -> None:
    """A program that was cut off sends its events in one gzip body; their ids are in sequence."""
    events = [
        {"event_id": f"e-{n}", "event_type": "ad_click", "page_view_id": f"v-{n}", "occurred_at": 1_767_225_600_000}
        for n in range(count)
    ]
    content = "\n".join(map(json.dumps, events)).encode()
    limit = WorkLimit.of(len(gzip.compress(content)), 16 * 1024 * 1024)
    assert len(content) <= limit.content_bytes
    assert len(split_body("application/x-ndjson", content, max_units=limit.units)) == count
