"""The HTTP client: sends requests when they are due, repeats failed ones, and notes the real times."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

import aiohttp
import msgspec
import structlog

from app.errors import LocalStackError
from app.local.traffic.content import Browser
from app.local.traffic.schedule import Request
from app.local.traffic.stories import EventFacts, Line

log = structlog.get_logger(__name__)

CONNECTIONS: Final = 64
GIVE_UP_S: Final = 120.0
"""If a request is refused or unanswered for so long, the run is given up; a caller may set another time."""
RETRY_STATUS: Final = frozenset({429, 500, 502, 503, 504})
PAUSE_S: Final = 0.25


class Interval(msgspec.Struct):
    """The interval (ms) in which the collector received an event: the union over its copies."""

    first_ms: int
    last_ms: int

    def include(self, first_ms: int, last_ms: int) -> None:
        """Widen the interval by another copy's."""
        self.first_ms = min(self.first_ms, first_ms)
        self.last_ms = max(self.last_ms, last_ms)


class SentEvent(msgspec.Struct):
    """A logical event, the interval of its receipt, and the number of its copies that the collector kept."""

    facts: EventFacts
    body: bytes
    """The sent line; empty if the run keeps no bodies."""
    agent: Browser
    received: Interval
    copies: int = 1


class SentMalformed(msgspec.Struct):
    """A malformed line."""

    body: bytes
    fault: str
    in_array: bool
    """Sent as an element of a JSON array, so the collector may have written it anew."""
    unsure: int = 0
    """Attempts that failed after the request was sent: each may have been kept too."""


class SentRequest(msgspec.Struct):
    """Everything that a run sent."""

    started_at_ms: int
    events: dict[str, SentEvent] = {}
    malformed: list[SentMalformed] = []
    acknowledged_at_ms: dict[str, int] = {}
    """batch_id -> first answer that named it."""
    lines: int = 0
    requests: int = 0
    retries: int = 0
    unsure_lines: int = 0
    """Lines of attempts that failed after they were sent: they may be in the pipeline once more."""
    took_s: float = 0.0
    slowest_answer_s: float = 0.0


class _Outcome(msgspec.Struct):
    """How one request ended."""

    batch_id: str
    accepted: int
    first_ms: int
    last_ms: int
    unsure: int


class Sender:
    """Sends one run to one collector."""

    def __init__(self, collector_url: str, started_at_ms: int, *, keep_bodies: bool, patience_s: float = GIVE_UP_S) -> None:
        """Send to a collector.

        Args:
            collector_url: without a slash at its end.
            started_at_ms: the moment (ms since the epoch) of offset 0.
            keep_bodies: keep the sent lines, so that the warehouse can be compared field by field.
            patience_s: longest time that a request may be refused or unanswered.
        """
        self._url = collector_url
        self._keep_bodies = keep_bodies
        self._patience_s = patience_s
        self.sent = SentRequest(started_at_ms)

    async def run(self, requests: Iterable[Request], progress: Callable[[int], None] | None = None) -> SentRequest:
        """Send every request when it is due and return when the last is answered.

        Args:
            requests: in order of time.
            progress: called with the number of lines acknowledged so far.

        Raises:
            LocalStackError: the collector refused a request for good, kept another number of lines than were sent, or
                did not answer for `patience_s`.
        """
        start = time.monotonic()
        offset_s = self.sent.started_at_ms / 1000 - time.time()
        slots = asyncio.Semaphore(CONNECTIONS)
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        timeout = aiohttp.ClientTimeout(total=60)
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
                for request in requests:
                    await asyncio.sleep(max(0.0, start + offset_s + request.at_s - time.monotonic()))
                    await slots.acquire()
                    task = group.create_task(self._post(session, request, progress))
                    task.add_done_callback(lambda _: slots.release())
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from exc
        self.sent.took_s = time.monotonic() - start
        return self.sent

    async def _post(self, session: aiohttp.ClientSession, request: Request, progress: Callable[[int], None] | None) -> None:
        outcome = await self._until_kept(session, request)
        if outcome.accepted != len(request.lines):
            raise LocalStackError(f"the collector kept {outcome.accepted} of a request's {len(request.lines)} lines")
        sent = self.sent
        sent.requests += 1
        sent.unsure_lines += outcome.unsure * len(request.lines)
        sent.acknowledged_at_ms.setdefault(outcome.batch_id, outcome.last_ms)
        sent.slowest_answer_s = max(sent.slowest_answer_s, (outcome.last_ms - outcome.first_ms) / 1000)
        in_array = request.headers["Content-Type"] == "application/json"
        for line in request.lines:
            self._note(line, outcome, in_array)
        sent.lines += len(request.lines)
        if progress:
            progress(sent.lines)

    async def _until_kept(self, session: aiohttp.ClientSession, request: Request) -> _Outcome:
        """Post until the collector says that it kept the lines.

        Returns: the answer, and the interval in which the lines were kept.
        """
        first_ms, unsure = _now_ms(), 0
        give_up = time.monotonic() + self._patience_s
        while True:
            try:
                async with session.post(self._url + request.path, data=request.body, headers=request.headers) as response:
                    text = await response.text()
                if response.status == 200:
                    answer = msgspec.json.decode(text)
                    return _Outcome(answer["batch_id"], answer["accepted"], first_ms, _now_ms(), unsure)
                refusal = f"{response.status} {text[:200]}"
                if response.status not in RETRY_STATUS:
                    raise LocalStackError(f"the collector refused a request: {refusal}")
                unsure += response.status != 429
                pause_s = float(response.headers.get("Retry-After") or PAUSE_S)
            except (aiohttp.ClientError, TimeoutError) as exc:
                unsure += not isinstance(exc, aiohttp.ClientConnectorError)
                refusal, pause_s = f"{type(exc).__name__}: {exc}", PAUSE_S
            if time.monotonic() > give_up:
                raise LocalStackError(f"the collector does not take events: {refusal}")
            log.info("sending a request again", lines=len(request.lines), refusal=refusal)
            self.sent.retries += 1
            await asyncio.sleep(pause_s)
            if not unsure:
                first_ms = _now_ms()

    def _note(self, line: Line, outcome: _Outcome, in_array: bool) -> None:
        if line.facts is None:
            self.sent.malformed.append(SentMalformed(line.body, line.fault or "", in_array, outcome.unsure))
            return
        known = self.sent.events.get(line.facts.event_id)
        if known:
            known.copies += 1
            known.received.include(outcome.first_ms, outcome.last_ms)
            return
        body = line.body if self._keep_bodies else b""
        self.sent.events[line.facts.event_id] = SentEvent(
            line.facts, body, line.agent, Interval(outcome.first_ms, outcome.last_ms)
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
