"""`python -m tests.rig.browser`: a page of another origin sends events in every way, from headless Chromium.

A browser is no dependency of this project. The exact headers that the Fetch standard asks for are tested without one, in
`tests/agents/collector/test_collector_answers.py`; this command shows on a machine with Chromium that they are enough.
Exit codes: 0 every event arrived and the page read every answer, 1 one did not, 2 there is no Chromium.
"""

import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path

from aiohttp import web

from tests.builders.events import event
from tests.worlds.collector import CollectorWorld
from tests.worlds.waiting import PAUSE_S, until

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


async def play(chromium: str, folder: Path) -> int:
    """Let a page send, and compare what the collector has stored.

    Args:
        chromium: the browser.
        folder: for its profile and log.

    Returns: the number of events that arrived.

    Raises:
        AssertionError: an event or an answer is missing.
    """
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
        with (folder / "log").open("wb") as log:
            browser = await asyncio.create_subprocess_exec(
                chromium, *options, f"--user-data-dir={folder}/profile", address, stdout=log, stderr=log
            )
        expected = {"beacon-text", "beacon-blob-text", "beacon-blob-json", *(name for name, *_ in FETCHES)}

        async def is_all_there() -> bool:
            assert browser.returncode is None, (folder / "log").read_text()
            return {line.get("event_id") for line in await world.stored_lines()} == expected and len(told) == len(FETCHES)

        try:
            await until(is_all_there, PAUSE_S, lambda: str(told))
            assert set(told.values()) == {"1"}, "the page reads every answer"
        finally:
            if browser.returncode is None:
                browser.terminate()
            await browser.wait()
            await runner.cleanup()
    return len(expected)


def main() -> int:
    """Find a browser and play."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("there is no Chromium on this machine: apt-get install chromium", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="instream-browser-", ignore_cleanup_errors=True) as folder:
        try:
            count = asyncio.run(play(chromium, Path(folder)))
        except AssertionError as exc:
            print(f"not every event arrived: {exc}", file=sys.stderr)
            return 1
    print(f"{count} events of a page of another origin arrived, and the page read every answer")
    return 0


if __name__ == "__main__":
    sys.exit(main())
