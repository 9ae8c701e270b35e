"""Visitors of a small publisher, and clients that send what they do until it is acknowledged."""

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.builders.source_log import CHROME, GOOGLEBOT, IPHONE

if TYPE_CHECKING:
    from tests.simulation.world import World

IP = "203.0.113.77"
_PAGE = "https://news.example/a?utm_source=mail&utm_term=t&fbclid=f1"
REQUEST_TIMEOUT_S = 15.0


class Sent(NamedTuple):
    """A request that was acknowledged."""

    batch_id: str
    lines: tuple[bytes, ...]


def _as_some_send_it(event: dict[str, Any], number: int) -> dict[str, Any]:
    """Some servers do not know the visitor; some clients break the rule of an optional field."""
    if number % 11 == 0 and event["user_agent"] != GOOGLEBOT:
        del event["user_agent"], event["ip"]
    if number % 7 == 0:
        event |= {"section": 17, "scroll_pct": 103, "occurred_at": event["occurred_at"] + 0.5}
    return event


class Traffic:
    """Everything that clients send in one history."""

    def __init__(self, world: "World", seconds: float) -> None:
        self._world = world
        self._chance = world.chance
        self._seconds = seconds
        self.refusable: set[str] = set()
        """Ids of events that an older collector rejects; another copy of them may be accepted."""
        self._ids = 0
        self.acknowledged: list[Sent] = []
        self.refusals: dict[str, int] = {}
        self.event_ids: set[str] = set()
        self._running = 0
        self._due: dict[float, list[bytes]] = {}

    def start(self) -> None:
        at_s = 0.5
        while at_s < self._seconds:
            for moment_s, line in self._visit(at_s):
                self._at(moment_s, [line])
            at_s += self._gap_s(at_s)

    def _gap_s(self, at_s: float) -> float:
        """From one visitor's arrival to the next one's."""
        return self._chance.choice([0.05, 0.4, 1.5])

    @property
    def done(self) -> bool:
        return self._running == 0

    # --- stories

    def _event(self, kind: str, at_s: float, **fields: Any) -> dict[str, Any]:
        self._ids += 1
        event_id = f"e{self._ids}"
        self.event_ids.add(event_id)
        event = {"event_id": event_id, "event_type": kind, "occurred_at": self._world.base_ms + round(at_s * 1000),
                 "ip": IP, "user_agent": CHROME, **fields}  # fmt: skip
        return _as_some_send_it(event, self._ids)

    def _visit(self, at_s: float) -> list[tuple[float, bytes]]:
        """One visitor's lines and when they are sent."""
        chance, join = self._chance, self._world.settings.join
        window_s, grace_s, reorder_s = (ms / 1000 for ms in join)
        view = f"v{self._ids}"
        agent = chance.choice([CHROME] * 8 + [IPHONE] * 4 + [GOOGLEBOT])
        said: list[tuple[float, dict[str, Any]]] = []
        common = {"page_view_id": view, "user_agent": agent}
        match chance.choices(["view", "redirect", "malformed", "orphan"], [12, 2, 1, 1])[0]:
            case "redirect":
                said.append(
                    (
                        at_s,
                        self._event("redirect", at_s, cost_micros=chance.randrange(1000), currency="EUR", user_agent=agent),
                    )
                )
            case "malformed":
                return [(at_s, chance.choice([b'{"event_id": true}', b"{oops", b'"\xff"']))]
            case "orphan":
                said.append((at_s, self._event("engagement", at_s, dwell_ms=5, **common)))
            case _:
                firsts = chance.choice([1] * 9 + [2])
                for n in range(firsts):
                    said.append((at_s + n * 0.3, self._event("page_view", at_s, url=_PAGE, **common)))
                for n in range(chance.choice([0, 1, 3])):
                    said.append((at_s + 0.1, self._event("ad_impression", at_s, ad_slot=n + 1, revenue_micros=n, **common)))
                if chance.random() < 0.2:
                    said.append((at_s + 1, self._event("ad_click", at_s, creative_id="c", **common)))
                for _ in range(chance.choice([0, 1, 1, 1, 1, 2])):
                    after_s = chance.choice(
                        [window_s] * 8 + [1.0, window_s + grace_s - 0.3, window_s + grace_s + 3, -0.6 * reorder_s]
                    )
                    said.append(
                        (
                            max(0.0, at_s + after_s),
                            self._event("engagement", at_s + after_s, dwell_ms=9, engaged_ms=8, **common),
                        )
                    )
        out = [(moment_s, json.dumps(event).encode()) for moment_s, event in said]
        again = [(moment_s + chance.choice([0.0, 0.2, 5.0]), line) for moment_s, line in out if chance.random() < 0.06]
        return out + again

    # --- sending

    def _at(self, moment_s: float, lines: list[bytes]) -> None:
        """Lines due within the same half second go in one request."""
        slot = round(moment_s * 2) / 2
        waiting = self._due.setdefault(slot, [])
        if not waiting:
            self._running += 1
            self._world.loop.call_at(slot, lambda: self._world.spawn(self._send(tuple(self._due.pop(slot)))))
        waiting += lines

    async def _send(self, lines: tuple[bytes, ...]) -> None:
        """One request, again and again until it is acknowledged."""
        world, body = self._world, b"\n".join(lines)
        while True:
            try:
                batch_id = await self._post(body)
            except (*world.refusals, TimeoutError, ConnectionError) as exc:
                code = getattr(exc, "code", type(exc).__name__)
                self.refusals[code] = self.refusals.get(code, 0) + 1
                world.tell("client", f"{len(lines)} lines not acknowledged: {code}")
                await asyncio.sleep(self._chance.choice([0.3, 1.0, 2.0]))
                continue
            self.acknowledged.append(Sent(batch_id, lines))
            world.tell("client", f"{len(lines)} lines acknowledged in {batch_id[-12:]}")
            self._running -= 1
            return

    async def _post(self, body: bytes) -> str:
        world = self._world
        alive = [c for c in world.collectors.values() if c.process.alive]
        if not alive:
            raise ConnectionError
        collector = self._chance.choice(alive)
        await asyncio.sleep(collector.process.delay_s())
        answer: asyncio.Future[str] = world.loop.create_future()

        async def handle() -> None:
            try:
                batch_id = await collector.collect(body, CHROME, IP)
            except world.refusals as exc:
                if not answer.done():
                    answer.set_exception(exc)
                return
            await collector.process.gate()
            if not answer.done():
                answer.set_result(batch_id)

        def hang_up() -> None:
            if not answer.done():
                answer.set_exception(ConnectionError())

        collector.process.when_dead(hang_up)
        collector.process.spawn(handle(), "request")
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            batch_id = await answer
        if world.faults.on and self._chance.random() < 0.02:
            raise ConnectionError  # the answer is lost on its way
        return batch_id
