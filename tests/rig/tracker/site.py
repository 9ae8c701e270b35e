"""A site with tagged pages, a real collector, and between them a network that a test can break."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp
from aiohttp import web

from tests.worlds.collector import CollectorWorld

Network = Literal["ok", "unavailable", "offline", "answer lost"]
START_MS = 1_800_000_000_000
CLOCK = Path(__file__).with_name("clock.js")
PAGE = """<!doctype html><html lang="en"><title>Story NUMBER_HERE</title>
<script>CLOCK_HERE</script>
<script async src="GATE_HERE/t.js" data-key="demo" data-article_id="NUMBER_HERE"></script>
<p>Story<div data-ad_slot="1" data-creative_id="c-1" style="width:300px;height:250px;background:silver"></div>
<div style="height:5000px"></div>"""
PRERENDERS = """<script type="speculationrules">
{"prerender": [{"source": "list", "urls": ["/story/PATH_HERE"], "eagerness": "immediate"}]}</script>
<script>fetch("/go").then(() => (location.href = "/story/PATH_HERE"))</script>"""
"""A page that lets the browser load another one beforehand, and goes there when the test says so."""
TELLS = """<script>addEventListener("load", () => fetch("/loaded?" + [NUMBER_HERE, document.prerendering]))</script>"""


class Site:
    """Pages below /story/; `network` says what becomes of their events."""

    def __init__(self, world: CollectorWorld) -> None:
        self.world = world
        self.network: Network = "ok"
        self.now_ms = START_MS
        """The time with which a page that is loaded now begins."""
        self.loaded: list[str] = []
        """Pages whose scripts have run, with `prerendering`, if they were asked to tell: `2,true`."""
        self.go = asyncio.Event()
        """Lets a page with PRERENDERS go on."""
        self._session: aiohttp.ClientSession

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Site"]:
        site, gate = web.Application(), web.Application()
        site.add_routes([web.get("/story/{number}", self._page), web.get("/loaded", self._note), web.get("/go", self._hold)])
        gate.add_routes([web.route("*", "/{path:.*}", self._pass)])
        runners = [web.AppRunner(app, access_log=None) for app in (site, gate)]
        async with self.world.running(), aiohttp.ClientSession(auto_decompress=False) as self._session:
            for runner, host in zip(runners, ("localhost", "127.0.0.1"), strict=True):
                await runner.setup()
                await web.TCPSite(runner, host, 0).start()
            self.url, self.gate = (
                f"http://{host}:{runner.addresses[0][1]}"
                for runner, host in zip(runners, ("localhost", "127.0.0.1"), strict=True)
            )
            try:
                yield self
            finally:
                await asyncio.gather(*(runner.cleanup() for runner in runners))

    async def events(self) -> list[dict[str, Any]]:
        """Every event that the collector has stored, in order; copies too."""
        return await self.world.stored_lines()

    async def _page(self, request: web.Request) -> web.Response:
        number = request.match_info["number"]
        clock = CLOCK.read_text().replace("START_HERE", str(self.now_ms))
        page = PAGE.replace("NUMBER_HERE", number).replace("CLOCK_HERE", clock).replace("GATE_HERE", self.gate)
        if "prerenders" in request.query:
            page += PRERENDERS.replace("PATH_HERE", request.query["prerenders"])
        if "Sec-Purpose" in request.headers:
            page += TELLS.replace("NUMBER_HERE", number)
        return web.Response(text=page, content_type="text/html")

    async def _note(self, request: web.Request) -> web.Response:
        self.loaded.append(request.query_string)
        return web.Response()

    async def _hold(self, _: web.Request) -> web.Response:
        await self.go.wait()
        return web.Response()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        """Give a request to the collector, as far as the network lets it pass."""
        if request.method == "POST":
            if self.network == "unavailable":
                origin = {
                    "Access-Control-Allow-Origin": request.headers["Origin"],
                    "Access-Control-Allow-Credentials": "true",
                }
                exposed = {"Access-Control-Expose-Headers": "Retry-After", "Retry-After": "2"}
                return web.Response(status=503, headers=origin | exposed)
            if self.network == "offline":
                return self._cut(request)
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name not in {"Host", "Content-Length"}}
        async with self._session.request(
            request.method, f"{self.world.url}{request.rel_url}", data=body, headers=headers
        ) as answer:
            text = await answer.read()
            if request.method == "POST" and self.network == "answer lost":
                return self._cut(request)
            kept = {
                name: value for name, value in answer.headers.items() if name not in {"Content-Length", "Transfer-Encoding"}
            }
            return web.Response(status=answer.status, body=text, headers=kept)

    def _cut(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
