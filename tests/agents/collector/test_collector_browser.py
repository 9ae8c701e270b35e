"""Events of a real page of another origin: every way to send, with and without credentials.

A browser is no dependency of this project. The exact headers that the Fetch standard asks for are tested without one, in
`test_collector_answers.py`; this test shows on a machine with Chromium that they are enough.
"""

import asyncio
import json
import shutil

import pytest
from aiohttp import web

from tests.builders.events import event
from tests.worlds.collector import CollectorWorld
from tests.worlds.waiting import PAUSE_S, until

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FETCHES = [
    (f"fetch-{credentials}-{kind.split('/')[1]}-{'keepalive' if keepalive else 'plain'}", credentials, kind, keepalive)
    for credentials in ("omit", "include")
    for kind in ("text/plain", "application/json")
    for keepalive in (False, True)
]
PAGE = """<!doctype html><script>
const url = URL_HERE, event = EVENT_HERE, text = id => JSON.stringify({...event, event_id: id});
const blob = (id, type) => new Blob([text(id)], {type});
navigator.sendBeacon(url, text("beacon-text"));
navigator.sendBeacon(url, blob("beacon-blob-text", "text/plain"));
navigator.sendBeacon(url, blob("beacon-blob-json", "application/json"));
for (const [id, credentials, type, keepalive] of FETCHES_HERE)
  fetch(url, {method: "POST", body: text(id), credentials, keepalive, headers: {"Content-Type": type}})
    .then(answer => answer.json())
    .then(answer => fetch("/done", {method: "POST", body: id + " " + answer.accepted}))
    .catch(error => fetch("/done", {method: "POST", body: id + " " + error}));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
async def test_a_page_of_another_origin_can_send_in_every_way(tmp_path):
    assert CHROMIUM is not None
    told: dict[str, str] = {}

    async def show(_: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    async def done(request: web.Request) -> web.Response:
        name, _, outcome = (await request.text()).partition(" ")
        told[name] = outcome
        return web.Response()

    async with CollectorWorld().running() as world:
        page = PAGE.replace("URL_HERE", json.dumps(f"{world.url}/v1/events?key=demo"))
        page = page.replace("EVENT_HERE", json.dumps(event())).replace("FETCHES_HERE", json.dumps(FETCHES))
        site = web.Application()
        site.add_routes([web.get("/", show), web.post("/done", done)])
        runner = web.AppRunner(site)
        await runner.setup()
        await web.TCPSite(runner, "localhost", 0).start()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
        address = f"http://localhost:{runner.addresses[0][1]}/"
        with (tmp_path / "log").open("wb") as log:
            browser = await asyncio.create_subprocess_exec(
                CHROMIUM, *options, f"--user-data-dir={tmp_path}/profile", address, stdout=log, stderr=log
            )
        expected = {"beacon-text", "beacon-blob-text", "beacon-blob-json", *(name for name, *_ in FETCHES)}

        async def is_all_there() -> bool:
            assert browser.returncode is None, (tmp_path / "log").read_text()
            return {line.get("event_id") for line in await world.stored_lines()} == expected and len(told) == len(FETCHES)

        try:
            await until(is_all_there, PAUSE_S, lambda: str(told))
            assert set(told.values()) == {"1"}, "the page reads every answer"
        finally:
            if browser.returncode is None:
                browser.terminate()
            await browser.wait()
            await runner.cleanup()
