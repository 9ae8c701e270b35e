"""`python -m tests.rig.tags [--record FILE]`: what becomes of each event of the unmodified trackers.

npm fetches the trackers' packages (`pages.PACKAGES`) into a folder that is removed at the end. Pages with them run in
headless Chromium and send across origins to a real collector. One answer is lost on the way, and one event is too large for
ever. Exit codes: 0 every event that a tracker made is stored, mapped or refused by name; 1 one is not; 2 there is no
Chromium or no npm.

`--record` writes the requests of this run for `tests/agents/collector/test_collector_tags_recorded.py`.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from tests.rig.tags.pages import PACKAGES, pages
from tests.rig.tags.recorder import Recorder
from tests.worlds.collector import CollectorWorld
from tests.worlds.waiting import until

MAX_BODY_BYTES: Final = 30_000
LOOK_EVERY_S: Final = 0.5
IFRAMES: Final = "<!doctype html>{}"
CHROMIUM: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0",
    "--window-size=1200,800",
)  # fmt: skip


def install(folder: Path) -> None:
    """Fetch the packages.

    Raises:
        subprocess.CalledProcessError: npm failed; its output is on the terminal.
    """
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--legacy-peer-deps", "--loglevel=error"]
    subprocess.run(["npm", "install", *options, "--prefix", str(folder), *PACKAGES], check=True)


async def play(chromium: str, folder: Path, shown: list[str]) -> Recorder:
    """Let the pages send, and compare what the collector stored with what they say they sent.

    Args:
        chromium: the browser.
        folder: with the packages, for its profile and log.
        shown: gets the lines of the table.

    Returns: the requests.

    Raises:
        AssertionError: an event is missing, or is neither mapped nor refused by name.
    """
    told: dict[str, list[list[str]]] = {}

    async def done(request: web.Request) -> web.Response:
        name, sent = json.loads(await request.text())
        told[name] = sent
        return web.Response()

    async with CollectorWorld(max_body_bytes=MAX_BODY_BYTES).running() as world:
        recorder = Recorder(world.url)
        proxy = web.Application()
        proxy.router.add_route("*", "/{path:.*}", recorder.pass_on)
        proxy_runner, proxy_url = await _serve(proxy)
        made = pages(proxy_url, MAX_BODY_BYTES)
        site = web.Application()
        site.router.add_static("/packages/", folder / "node_modules")
        site.add_routes([web.post("/done", done), web.get("/page/{name}", _shows(made))])
        everything = IFRAMES.format("".join(f'<iframe src="/page/{name}" width=1000 height=700></iframe>' for name in made))
        site.add_routes([web.get("/", _shows({"": everything}))])
        site_runner, site_url = await _serve(site)
        with (folder / "log").open("wb") as log:
            browser = await asyncio.create_subprocess_exec(
                chromium, *CHROMIUM, f"--user-data-dir={folder}/profile", site_url, stdout=log, stderr=log
            )

        async def is_all_there() -> bool:
            assert browser.returncode is None, (folder / "log").read_text()
            if told.keys() != made.keys():
                return False
            ids = {line.get("event_id") for line in await world.stored_lines()}
            return all(event_id in ids for sent in told.values() for _, event_id in sent)

        try:
            await until(is_all_there, LOOK_EVERY_S, lambda: f"{told}; {_short(recorder.requests)}")
        finally:
            if browser.returncode is None:
                browser.terminate()
            await browser.wait()
            await site_runner.cleanup()
            await proxy_runner.cleanup()
        lines = await world.stored_lines()
    assert recorder.lost == 1, "the first answer to a POST of Snowplow's was lost"
    _judge(told, lines, shown)
    _judge_statuses(recorder.requests)
    return recorder


def _judge(told: dict[str, list[list[str]]], lines: list[dict[str, Any]], shown: list[str]) -> None:
    """Each event's fate, as a table."""
    by_id: dict[Any, dict[str, Any]] = {}
    for line in lines:
        seen = by_id.setdefault(line.get("event_id"), line)
        assert _content(seen) == _content(line), "a retry is the same event"
    fates: Counter[tuple[str, str, str]] = Counter()
    for page, sent in told.items():
        for kind, event_id in sent:
            line = by_id[event_id]
            if "malformed" in line:
                assert line["malformed"].startswith("event_type: "), line["malformed"]
                assert line["malformed"].endswith(" is not taken"), line["malformed"]
            fates[page, kind, str(line.get("malformed", line.get("event_type")))] += 1
    shown += [f"{'page':<18} {'kind':<9} {'events':>6}  became", *(_row(key, fates[key]) for key in sorted(fates))]
    refused = sum(count for (_, _, fate), count in fates.items() if "not taken" in fate)
    shown.append(f"{fates.total()} events: {fates.total() - refused} mapped, {refused} refused by name, 0 lost")


def _row(key: tuple[str, str, str], count: int) -> str:
    page, kind, fate = key
    return f"{page:<18} {kind:<9} {count:>6}  {fate}"


def _content(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "received_at"}


def _judge_statuses(requests: Iterable[dict[str, Any]]) -> None:
    """The event that is too large was refused once, with a status after which the tracker went on."""
    refused = [request for request in requests if request["status"] != 200]
    assert [request["status"] for request in refused] == [422], _short(refused)


def _short(requests: Iterable[dict[str, Any]]) -> str:
    return ", ".join(f"{each['method']} {each['path'][:60]} {each['status']}" for each in requests)


def _shows(made: dict[str, str]) -> Any:
    async def show(request: web.Request) -> web.Response:
        return web.Response(text=made[request.match_info.get("name", "")], content_type="text/html")

    return show


async def _serve(app: web.Application) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "localhost", 0).start()
    return runner, f"http://localhost:{runner.addresses[0][1]}"


def main() -> int:
    """Find the programs, and play."""
    parser = argparse.ArgumentParser(prog="python -m tests.rig.tags")
    parser.add_argument("--record", type=Path, help="write the requests of the run into this file")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or shutil.which("npm") is None:
        print("there is no Chromium or no npm on this machine: apt-get install chromium npm", file=sys.stderr)
        return 2
    shown: list[str] = []
    with tempfile.TemporaryDirectory(prefix="instream-tags-", ignore_cleanup_errors=True) as folder:
        install(Path(folder))
        try:
            recorder = asyncio.run(play(chromium, Path(folder), shown))
        except AssertionError as exc:
            print(f"not every event was mapped or refused by name: {exc}", file=sys.stderr)
            return 1
    print("\n".join(shown))
    if options.record is not None:
        kept = [request for request in recorder.requests if request["status"] == 200]
        options.record.write_text("".join(json.dumps(request) + "\n" for request in kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
