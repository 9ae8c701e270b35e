"""The tracker in pages of a browser that has no body: QuickJS runs the script that is served, `page.js` is its browser."""

import json
from pathlib import Path
from typing import Any

import quickjs

from app.tracker import read_script

EPOCH_MS = 1_800_000_000_000
"""Date.now() at the start."""


class Browser:
    """One browser with one localStorage, and the pages in it."""

    def __init__(self, *, has_fetch_later: bool = True, storage: dict[str, str] | None = None) -> None:
        self._js = quickjs.Context()
        self._js.eval(Path(__file__).with_name("page.js").read_text())
        self._js.set("source", read_script("t.js").text.decode())
        self._do(f"browser.hasFetchLater = {json.dumps(has_fetch_later)}")
        self._do(f"Object.assign(browser.localStorage, {json.dumps(storage or {})})")

    def open(self, session: str = "tab", **options: Any) -> "Page":
        """A page that has just been loaded, in the tab whose sessionStorage has that name; `options`: see page.js."""
        self._do(f"(browser.sessions ||= {{}})[{json.dumps(session)}] ||= {{}}")
        text = json.dumps(options)
        number = self._do(f"browser.open(source, {{...{text}, session: browser.sessions[{json.dumps(session)}]}})")
        return Page(self, int(number))

    def wait(self, ms: float) -> None:
        """Let time pass, in all pages."""
        end = self.now_ms + ms
        while self._do(f"browser.clock.run({end})"):
            pass

    @property
    def now_ms(self) -> float:
        return float(self._do("browser.clock.now"))

    def network(self, kind: str = "ok", status: int = 200, retry_after: str | None = None, delay: int = 50) -> None:
        """What becomes of requests: `ok` (answered with the status), `offline`, `answer lost` (it arrives all the same)."""
        state = {"kind": kind, "status": status, "retryAfter": retry_after, "delay": delay}
        self._do(f"browser.network = {json.dumps(state)}")

    @property
    def storage(self) -> dict[str, str]:
        return json.loads(self._do("JSON.stringify(browser.localStorage)"))

    @property
    def requests(self) -> list[dict[str, Any]]:
        """Every request that left a page, with its `events`."""
        requests = json.loads(self._do("JSON.stringify(browser.requests)"))
        for request in requests:
            body = json.loads(request["body"])
            request["events"] = body if isinstance(body, list) else [body]
        return requests

    @property
    def copies(self) -> list[dict[str, Any]]:
        """Events that a collector kept, in the order of their arrival, with `at`; an event may be there more than once."""
        return [
            event | {"at": request["at"]}
            for request in self.requests
            if request["reaches"] and request["status"] == 200
            for event in request["events"]
        ]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Events as dedup leaves them: the first copy of each id."""
        first: dict[str, dict[str, Any]] = {}
        for event in self.copies:
            first.setdefault(event["event_id"], event)
        return list(first.values())

    def of(self, event_type: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event_type"] == event_type]

    def _do(self, code: str) -> Any:
        """Run JavaScript, then everything that it promised."""
        result = self._js.eval(code)
        while self._js.execute_pending_job():
            pass
        return result


class Page:
    """A page of a browser; its methods are those of page.js."""

    def __init__(self, browser: Browser, number: int) -> None:
        self._browser = browser
        self._name = f"browser.pages[{number}]"

    def __getattr__(self, method: str) -> Any:
        def call(*given: Any) -> Any:
            return self._browser._do(f"{self._name}.{method}({', '.join(json.dumps(each) for each in given)})")

        return call

    def push(self, *command: Any) -> None:
        self._browser._do(f"{self._name}.window.instream.push({json.dumps(command)})")

    def go(self, path: str) -> None:
        """An application of one page changes its address."""
        self._browser._do(
            f"Object.assign({self._name}.window.location, {{pathname: {path!r}, href: 'https://news.example{path}'}})"
        )

    def set(self, name: str, value: Any) -> None:
        """Set a property of the window."""
        self._browser._do(f"{self._name}.window.{name} = {json.dumps(value)}")

    @property
    def session(self) -> dict[str, str]:
        return json.loads(self._browser._do(f"JSON.stringify({self._name}.session)"))
