"""The collector serves the tracker: compressed, cached, and to any page."""

import gzip

import pytest

from app.tracker import read_script
from tests.worlds.collector import CollectorWorld


@pytest.fixture
async def world():
    async with CollectorWorld().running() as running:
        yield running


async def get(world: CollectorWorld, path: str, method: str = "GET", **headers: str):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with world.session.request(method, world.url + path, headers=names, auto_decompress=False) as answer:
        return answer.status, await answer.read(), answer.headers


@pytest.mark.parametrize("name", ["t.js", "t-ads.js"])
@pytest.mark.parametrize("encoding", ["gzip, deflate, br", "identity"])
async def test_a_script_is_served_and_asked_for_again(world, name, encoding):
    status, body, headers = await get(world, f"/{name}", Accept_Encoding=encoding, Origin="https://news.example")
    is_zipped = "gzip" in encoding
    assert (status, gzip.decompress(body) if is_zipped else body) == (200, read_script(name).text)
    assert headers.get("Content-Encoding") == ("gzip" if is_zipped else None)
    assert headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert headers["Cache-Control"] == "public, max-age=3600, stale-while-revalidate=86400"
    assert headers["Vary"] == "Accept-Encoding"  # not Origin: one copy of a cache is for every page
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    again = await get(world, f"/{name}", Accept_Encoding=encoding, If_None_Match=headers["ETag"])
    assert (again[0], again[1], again[2]["ETag"]) == (304, b"", headers["ETag"])
    weak = await get(world, f"/{name}", Accept_Encoding=encoding, If_None_Match=f'"x", W/{headers["ETag"]}')
    assert weak[0] == 304
    assert (await get(world, f"/{name}", Accept_Encoding=encoding, If_None_Match='"old"'))[0] == 200


async def test_the_two_forms_of_a_script_are_told_apart(world):
    tags = {(await get(world, "/t.js", Accept_Encoding=encoding))[2]["ETag"] for encoding in ("gzip", "identity")}
    assert len(tags) == 2


async def test_only_who_asks_for_it_gets_the_example_page(world):
    assert (await get(world, "/example/"))[0] == 404
    async with CollectorWorld(example_page=True).running() as local:
        status, page, headers = await get(local, "/example/", Accept_Encoding="identity")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'<script async src="/t.js" data-key="demo"' in page


async def test_head_is_answered_without_a_body(world):
    status, body, headers = await get(world, "/t.js", "HEAD", Accept_Encoding="gzip")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(read_script("t.js").zipped)))
