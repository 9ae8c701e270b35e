"""Reading sessions in a browser: what a seeded reader does, how the page ends, and what must have arrived of it."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.rig.tracker.site import Network, Site
from tests.worlds.chromium import Chromium, Tab, running_chromium
from tests.worlds.reading import Reader, truth
from tests.worlds.waiting import PAUSE_S, until

ENDS = (
    "close", "navigate", "stay", "hide", "back", "crash", "offline", "unavailable", "answer lost", "three tabs", "kill",
)  # fmt: skip
"""How a session ends, in turn; `stay` is closed after more than 90 s, `back` comes back from the back/forward cache."""
_WHILE_READING: Final[dict[str, Network]] = {"offline": "offline", "unavailable": "unavailable"}
STALE_MS = 125_000
"""After that a page sends what other tabs have left over."""


@dataclass
class Expected:
    """The attention that one page view must have brought."""

    article_id: str
    engaged_ms: int
    end: str


@dataclass
class Outcome:
    """What a run of sessions showed."""

    sessions: Counter[str] = field(default_factory=Counter)
    arrived: Counter[str] = field(default_factory=Counter)
    errors_ms: list[int] = field(default_factory=list)
    """|reported - true| engaged time of each page view whose engagement arrived."""
    faults: list[str] = field(default_factory=list)
    copies: int = 0


class Readers:
    """A browser with its profile, on a site."""

    def __init__(self, site: Site, chromium: str, folder: Path) -> None:
        self.site = site
        self._chromium, self._folder = chromium, folder
        self._open = AsyncExitStack()
        self.browser: Chromium
        self.expected: list[Expected] = []

    @asynccontextmanager
    async def reading(self) -> AsyncIterator["Readers"]:
        await self._start()
        try:
            yield self
        finally:
            await self._open.aclose()

    async def _start(self) -> None:
        self.browser = await self._open.enter_async_context(running_chromium(self._chromium, self._folder))
        self.front = await self.browser.tab()

    async def play(self, number: int, seed: int, end: str) -> None:
        """One session: a reader of a story, from the load of the page to its end."""
        chance = random.Random(seed)
        story = f"s{number}"
        if end == "three tabs":
            await self._three_tabs(story, chance)
            return
        self.site.network = _WHILE_READING.get(end, "ok")
        tab = await self.browser.tab(f"{self.site.url}/story/{story}")
        engaged = await self._read(tab, self._acts(chance, 95_000 if end == "stay" else 0))
        if end == "answer lost":
            self.site.network = "answer lost"
        self.expected.append(Expected(story, engaged, end))
        await getattr(self, "_" + end.replace(" ", "_"))(tab, story, chance)
        self.site.network = "ok"

    def _acts(self, chance: random.Random, least_ms: int) -> Reader:
        """A reader who stays visible; an idle time of 6 s at the end, so that a moment more or less changes nothing."""
        reader = Reader.of(chance.randint(0, 10**9))
        kinds = ("scroll", "keydown", "pointerdown", "pointermove")
        reader.acts = [(at, act if act in kinds else "keydown") for at, act in reader.acts]
        reader.end = max(reader.acts[-1][0] + 6_000 if reader.acts else 6_000, least_ms)
        return reader

    async def _read(self, tab: Tab, reader: Reader) -> int:
        """Let the reader act; returns the engaged time that is true of it."""
        await tab.call("Page.bringToFront")
        await until(lambda: self._holds(tab, "!document.hidden && document.hasFocus()"), PAUSE_S)
        now, acts = 0, []
        for at, act in reader.acts:
            acts.append([at - now, act])
            now = at
        await tab.run(f"act({acts})")
        # A page's clock stands in the back/forward cache, so another page may be ahead.
        self.site.now_ms = max(self.site.now_ms, int(await tab.run(f"advance({reader.end - now})")))
        return truth(reader)[0]

    async def _close(self, tab: Tab, story: str, chance: random.Random) -> None:
        await tab.close()

    _stay = _offline = _unavailable = _answer_lost = _close

    async def _navigate(self, tab: Tab, story: str, chance: random.Random) -> None:
        await tab.go(f"{self.site.url}/story/{story}-next")
        self.expected.append(Expected(f"{story}-next", await self._read(tab, self._acts(chance, 0)), "navigate"))
        await tab.close()

    async def _hide(self, tab: Tab, story: str, chance: random.Random) -> None:
        """The reader looks at another tab, comes back, reads on, and closes the page while it is hidden."""
        await self._cover(tab)
        await tab.run("advance(20_000)")
        self.expected[-1].engaged_ms += await self._read(tab, self._acts(chance, 0))
        await self._cover(tab)
        self.site.now_ms = int(await tab.run("advance(3_000)"))
        await tab.close()

    async def _cover(self, tab: Tab) -> None:
        """Another tab comes to the front."""
        await self.front.call("Page.bringToFront")
        await until(lambda: self._holds(tab, "document.hidden"), PAUSE_S)

    async def _back(self, tab: Tab, story: str, chance: random.Random) -> None:
        """The reader goes on and comes back: the page is as it was, and its view is another one."""
        await tab.run("addEventListener('pageshow', (event) => (window.cameBack = event.persisted)), 0")
        await tab.go(f"{self.site.url}/story/{story}-next")
        self.expected.append(Expected(f"{story}-next", await self._read(tab, self._acts(chance, 0)), "back"))
        shown = tab.event("Page.frameNavigated")
        await tab.run("history.back(), 0")
        await shown
        await until(lambda: self._holds(tab, "window.cameBack"), PAUSE_S)
        await until(lambda: self._has_views(story, 2), PAUSE_S)  # of the page's first second some time passes in truth
        self.expected.append(Expected(story, await self._read(tab, self._acts(chance, 0)), "back"))
        await tab.close()

    async def _crash(self, tab: Tab, story: str, chance: random.Random) -> None:
        """The page's process ends; the browser lives."""
        crashed = tab.event("Inspector.targetCrashed")
        await tab.call("Inspector.enable")
        crash = asyncio.create_task(tab.call("Page.crash"))
        await crashed
        crash.cancel()
        await self.browser.call("Target.closeTarget", targetId=tab.target)

    async def _kill(self, tab: Tab, story: str, chance: random.Random) -> None:
        """The browser itself is killed, once its storage is on disk (that takes some seconds), and starts again."""
        draft = await tab.run("Object.values(localStorage).filter((text) => text.includes('dwell_ms')).sort().at(-1)")
        folder = self._folder / "profile" / "Default" / "Local Storage" / "leveldb"
        await until(lambda: any(draft.encode() in file.read_bytes() for file in folder.glob("*.log")), PAUSE_S)
        self.browser.process.kill()
        await self._open.aclose()
        await self._start()

    async def _three_tabs(self, story: str, chance: random.Random) -> None:
        tabs = [await self.browser.tab(f"{self.site.url}/story/{story}-{n}") for n in range(3)]
        for n, tab in enumerate(tabs):
            await tab.run(f"advance({self.site.now_ms} - Date.now())")
            self.expected.append(Expected(f"{story}-{n}", await self._read(tab, self._acts(chance, 0)), "three tabs"))
        for tab in tabs:
            await tab.close()

    async def _has_views(self, story: str, count: int) -> bool:
        views = {line["event_id"] for line in await self.site.events() if line.get("article_id") == story}
        return len(views) >= count

    async def _holds(self, tab: Tab, code: str) -> bool:
        return bool(await tab.run(code))

    async def collect(self) -> None:
        """A last visit, long enough to send what every page has left over."""
        tab = await self.browser.tab(f"{self.site.url}/story/last")
        await tab.call("Page.bringToFront")

        async def is_empty() -> bool:
            await tab.run(f"advance({STALE_MS})")
            left = await tab.run("Object.keys(localStorage).filter((key) => key.startsWith('instream.e.')).length")
            return int(left) <= 1  # the draft of this page

        await until(is_empty, PAUSE_S)
        await tab.close()

    async def judge(self) -> Outcome:
        """Compare what the collector has with what the sessions were."""
        outcome = Outcome()
        lines = await self.site.events()
        first: dict[str, dict[str, Any]] = {}
        for line in lines:
            if "malformed" in line:
                outcome.faults.append(f"malformed: {line}")
            first.setdefault(line["event_id"], line)
        outcome.copies = len(lines) - len(first)
        events = list(first.values())
        numbers = Counter((own["tab"], own["seq"]) for own in (json.loads(event["properties"]) for event in events))
        outcome.faults += [f"{count} events have number {number}" for number, count in numbers.items() if count > 1]
        views: dict[str, list[str]] = {}
        for event in events:
            if event["event_type"] == "page_view" and "article_id" in event:
                views.setdefault(event["article_id"], []).append(event["page_view_id"])
        reports: dict[str, int] = {}
        for event in events:
            if event["event_type"] == "engagement":
                view = event["page_view_id"]
                reports[view] = max(reports.get(view, 0), event["engaged_ms"])
        wanted = Counter(each.article_id for each in self.expected)
        for article, ids in views.items():
            if len(ids) != wanted[article] and article != "last":
                outcome.faults.append(f"{article}: {len(ids)} page views, not {wanted[article]}")
        for each in self.expected:
            ids = views.get(each.article_id, [])
            view = ids.pop(0) if ids else None
            outcome.sessions[each.end] += 1
            if view is None or view not in reports:
                outcome.faults.append(f"{each}: {'no engagement' if view else 'no page view'}")
                continue
            outcome.arrived[each.end] += 1
            outcome.errors_ms.append(abs(reports[view] - each.engaged_ms))
            if outcome.errors_ms[-1] > 1_000:
                outcome.faults.append(f"{each}: reported {reports[view]}")
        return outcome
