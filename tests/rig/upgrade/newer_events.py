"""Events that only the newer version knows, sent all the time: a newer type, and page views with a newer field.

The recipes "Add a flow" and "Add a field" add the two.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final

import msgspec

from app.local.traffic.content import HUMANS
from app.local.traffic.schedule import SERVER_KEY, Request
from app.local.traffic.send import Sender, SentRequest
from app.local.traffic.stories import Channel, EventFacts, Line
from tests.worlds.waiting import HANGS_S

NEWER_TYPE: Final = "video_start"
NEWER_FLOW: Final = "video_starts"
NEWER_FIELD: Final = "page_type"
"""Of page views; also the name of its column."""
EVERY_S: Final = 0.5
LINES: Final = 6
"""Events in one request."""
PAGES: Final = 3
"""Every so many-th event is a page view."""
LEAD_MS: Final = 200


class NewerRun(msgspec.Struct, frozen=True):
    """A run of such events."""

    run: str
    """Start of every id of the run."""
    sent: SentRequest


async def send_newer(collector_url: str, has_ended: Callable[[], bool]) -> NewerRun:
    """Send them until `has_ended`; each again until it is acknowledged, whichever version answers.

    Raises:
        LocalStackError: the collector refused or lost something.
    """
    run = f"n{secrets.token_hex(4)}"
    sender = Sender(collector_url, _now_ms() + LEAD_MS, keep_bodies=True, patience_s=HANGS_S)
    return NewerRun(run, await sender.run(requests(run, has_ended)))


def requests(run: str, has_ended: Callable[[], bool]) -> Iterator[Request]:
    """The requests, in order of time."""
    for number in count():
        if has_ended():
            return
        at_s = number * EVERY_S
        lines = [_line(event(run, number * LINES + index), at_s) for index in range(LINES)]
        headers = {"X-Write-Key": SERVER_KEY, "Content-Type": "application/x-ndjson"}
        yield Request(at_s, lines, "/v1/events", headers, b"\n".join(line.body for line in lines))


def event(run: str, number: int) -> dict[str, Any]:
    """One event; every fourth has properties, and every fifth the id of an article."""
    made: dict[str, Any] = {
        "event_id": f"{run}-{number}", "page_view_id": f"{run}-p{number}", "occurred_at": _now_ms(),
        "visitor_id": f"v-{number}", "user_agent": HUMANS[0].text,
    }  # fmt: skip
    if number % PAGES == 0:
        made |= {"event_type": "page_view", "url": f"https://example.com/a/{number}", NEWER_FIELD: f"type {number} \u00e9"}
    else:
        made |= {"event_type": NEWER_TYPE, "video_id": f"video {number} \u00e9"}
    if number % 4 == 0:
        made["properties"] = {"quality": number}
    if number % 5 == 0:
        made["article_id"] = f"a-{number}"
    return made


def _line(body: dict[str, Any], at_s: float) -> Line:
    facts = EventFacts(body["event_id"], body["event_type"], body["page_view_id"], is_bot=False)
    return Line(at_s, Channel.SERVER, HUMANS[0], json.dumps(body).encode(), facts)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
