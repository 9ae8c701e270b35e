"""Headless Chromium, driven by its DevTools protocol."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.worlds.waiting import PAUSE_S, until

OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--mute-audio",
    "--disable-features=Translate,OptimizationHints", "--disable-blink-features=AutomationControlled",
    "--remote-debugging-port=0",
]  # fmt: skip


def find_chromium() -> str | None:
    """The browser of this machine, if it has one."""
    return shutil.which("chromium") or shutil.which("google-chrome")


class Chromium:
    """A running browser."""

    def __init__(self, process: asyncio.subprocess.Process, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.process = process
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: dict[tuple[str | None, str], list[asyncio.Future[dict[str, Any]]]] = {}

    async def listen(self) -> None:
        """Give every message to whom it concerns; ends with the browser."""
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                answer = self._answers.pop(told["id"])
                if not answer.done():
                    answer.set_result(told)
                continue
            for waiting in self._events.pop((told.get("sessionId"), told["method"]), []):
                if not waiting.done():
                    waiting.set_result(told["params"])
        for answer in self._answers.values():
            answer.cancel()

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Call the protocol.

        Raises:
            RuntimeError: the browser refuses.
        """
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(
            {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        )
        told = await answer
        if "error" in told:
            raise RuntimeError(f"{method}: {told['error']}")
        result: dict[str, Any] = told["result"]
        return result

    def event(self, method: str, session: str | None = None) -> "asyncio.Future[dict[str, Any]]":
        """The next event of that name."""
        waiting: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._events.setdefault((session, method), []).append(waiting)
        return waiting

    async def tab(self, url: str = "about:blank", *, window: bool = False) -> "Tab":
        """A new tab, or a new window, that has loaded `url`."""
        target = (await self.call("Target.createTarget", url="about:blank", newWindow=window))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        tab = Tab(self, target, session)
        await tab.call("Page.enable")
        if url != "about:blank":
            await tab.go(url)
        return tab


class Tab:
    """A tab of a browser."""

    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self._browser, self.target, self._session = browser, target, session

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._browser.call(method, self._session, **params)

    def event(self, method: str) -> "asyncio.Future[dict[str, Any]]":
        return self._browser.event(method, self._session)

    async def go(self, url: str) -> None:
        """Load a page, with everything in it."""
        loaded = self.event("Page.loadEventFired")
        await self.call("Page.navigate", url=url)
        await loaded

    async def run(self, code: str) -> Any:
        """Run JavaScript; its value, or what its promise brings.

        Raises:
            RuntimeError: the code threw.
        """
        told = await self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            raise RuntimeError(str(told["exceptionDetails"]))
        return told["result"].get("value")

    async def close(self) -> None:
        """Close the tab as a reader does: the page is left."""
        gone = self._browser.event("Target.detachedFromTarget")
        await self.call("Page.close")
        await gone


def _port_file(folder: Path) -> Path:
    """Where the browser will say where it listens; of an earlier browser nothing is left."""
    folder.mkdir(parents=True, exist_ok=True)
    port = folder / "profile" / "DevToolsActivePort"
    port.unlink(missing_ok=True)
    return port


@asynccontextmanager
async def running_chromium(chromium: str, folder: Path, *options: str) -> AsyncIterator[Chromium]:
    """A browser with its profile in `folder`, and its log beside it."""
    port = _port_file(folder)
    with (folder / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            chromium, *OPTIONS, *options, f"--user-data-dir={folder / 'profile'}", stdout=log, stderr=log
        )
    try:
        await until(lambda: port.exists() and port.read_text().count("\n") == 1, PAUSE_S, (folder / "log").read_text)
        number, path = port.read_text().split("\n")
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{number}{path}", max_msg_size=0) as socket,
        ):
            browser = Chromium(process, socket)
            listening = asyncio.create_task(browser.listen())
            try:
                yield browser
            finally:
                listening.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
