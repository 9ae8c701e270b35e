"""Bodies cut into lines."""

import gzip
import json
import zlib

import pytest

from app.core.events.request_body import gunzip, split_body
from app.errors import RequestRejected

JSON = "application/json"


def refused(content_type: str, body: bytes, max_lines: int = 10_000) -> tuple[int, str]:
    with pytest.raises(RequestRejected) as caught:
        split_body(content_type, body, max_lines)
    return caught.value.status, caught.value.code


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "text/plain;charset=UTF-8", "Text/Plain"])
@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"a\nb", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"\n\n a \n\r\n\n", [b" a "]),
        (b"a\r\r\n\r\r\nb\rc", [b"a\r", b"\r", b"b\rc"]),
        (b'[{"a":1},\n{"a":2}]', [b'[{"a":1},', b'{"a":2}]']),
        (b"\xff\x00\n\xe2\x80\xa8\x0b\x0c", [b"\xff\x00", b"\xe2\x80\xa8\x0b\x0c"]),
    ],
)
def test_ndjson_is_cut_at_lf_and_never_sniffed(content_type, body, lines):
    assert split_body(content_type, body) == lines


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
        b'["\xff"]', b'{"a":"\xff"}', b"\xef\xbb\xbf[1]", b"x", b'["\\ud800', b'["\\ud800",]', b'["\\ud800"}', b'["a\nb"]',
        b"[" * 5000, b"[{]", b'["\\ud800",{]',
    ],
)  # fmt: skip
def test_a_document_that_cannot_be_parsed_is_400(body):
    assert refused(JSON, body) == (400, "invalid_json")


@pytest.mark.parametrize("body", [b"1", b'"x"', b"null"])
def test_a_document_that_is_neither_object_nor_array_is_400(body):
    assert refused(JSON, body) == (400, "not_events")


@pytest.mark.parametrize(("content_type", "body"), [(JSON, b""), (JSON, b" [ ] "), ("text/plain", b"\r\n\n")])
def test_no_event_at_all_is_400(content_type, body):
    assert refused(content_type, body) == (400, "empty")


@pytest.mark.parametrize("content_type", ["", "text/html", "application/octet-stream", "application/jsonp"])
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
    assert refused(JSON, b"[" + deep + b",[" + b"[]," * 30_000 + b"0]]", 100) == (413, "too_complex")


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


def test_a_bomb_is_413_before_it_is_whole_in_memory():
    taken: list[int] = []
    with pytest.raises(RequestRejected) as caught:
        gunzip(gzip.compress(bytes(50_000_000)), 1_000_000, taken.append)
    assert (caught.value.status, caught.value.code) == (413, "too_large")
    assert sum(taken) <= 1_000_000
