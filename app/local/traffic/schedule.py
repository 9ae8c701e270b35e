"""Stories laid out in time: resent lines, and the requests in which lines travel."""

import gzip
import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final, NamedTuple

from app.local.traffic.stories import LINES_A_STORY, RESENT_SHARE, Author, Channel, Line

TICK_S: Final = 0.2
"""Lines of one sender that are due within this time travel in one request."""
MAX_LINES: Final = 500
SERVER_KEY: Final = "demo-server"
BROWSER_KEY: Final = "demo"


class Request(NamedTuple):
    """One POST."""

    at_s: float
    lines: list[Line]
    path: str
    headers: dict[str, str]
    body: bytes


def schedule(author: Author, events: int, rate: float, has_ended: Callable[[], bool] = lambda: False) -> Iterator[Line]:
    """Exactly `events` lines in order of time, about `rate` a second while stories begin; resent ones included.

    A resent line follows its first copy by 0.3 to 1.5 seconds.

    Args:
        author: writes the stories.
        events: the number of lines; there are fewer if `has_ended` says so before.
        rate: lines a second.
        has_ended: asked before every story; after a yes no other begins, and those that have begun come to their end.
    """
    rng = author.rng
    waiting: list[tuple[float, int, Line]] = []
    order = count()
    planned = 0
    for story in count():
        if has_ended():
            break
        at_s = story * LINES_A_STORY / rate
        while waiting and waiting[0][0] <= at_s:
            yield heapq.heappop(waiting)[2]
        for line in _with_copies(author.stories(at_s), rng):
            if planned == events:
                break
            planned += 1
            heapq.heappush(waiting, (line.at_s, next(order), line))
        if planned == events:
            break
    while waiting:
        yield heapq.heappop(waiting)[2]


def requests(lines: Iterator[Line], seed: int) -> Iterator[Request]:
    """The requests that carry `lines`, in order of time: NDJSON, arrays, beacons and single events, some compressed."""
    rng = random.Random(seed + 1)
    tick: dict[tuple[Channel, str], list[Line]] = defaultdict(list)
    end_s = TICK_S
    for line in lines:
        if line.at_s >= end_s:
            yield from _of_tick(tick, end_s, rng)
            tick.clear()
            while line.at_s >= end_s:
                end_s += TICK_S
        sender = line.agent.text if line.channel is Channel.BROWSER else ""
        tick[line.channel, sender].append(line)
    yield from _of_tick(tick, end_s, rng)


def _with_copies(lines: Iterator[Line], rng: random.Random) -> Iterator[Line]:
    for line in lines:
        yield line
        if line.facts and not line.once and rng.random() < RESENT_SHARE:
            yield line._replace(at_s=line.at_s + rng.uniform(0.3, 1.5))


def _of_tick(tick: dict[tuple[Channel, str], list[Line]], at_s: float, rng: random.Random) -> Iterator[Request]:
    for (channel, agent), lines in tick.items():
        start = 0
        while start < len(lines):
            size = 1 if rng.random() < 0.02 else rng.randrange(50, MAX_LINES)
            yield _request(at_s, channel, agent, lines[start : start + size], rng)
            start += size


def _request(at_s: float, channel: Channel, agent: str, lines: list[Line], rng: random.Random) -> Request:
    key = SERVER_KEY if channel is Channel.SERVER else BROWSER_KEY
    headers = {"User-Agent": agent or "example-backend/1.0"}
    path = "/v1/events"
    if rng.random() < 0.3:
        path += f"?key={key}"
    else:
        headers["X-Write-Key"] = key
    is_array_able = not any(line.only_ndjson for line in lines)
    if is_array_able and (len(lines) == 1 or rng.random() < 0.2):
        headers["Content-Type"] = "application/json"
        is_one_object = len(lines) == 1 and lines[0].body.startswith(b"{")
        body = lines[0].body if is_one_object else b"[" + b",".join(line.body for line in lines) + b"]"
    else:
        headers["Content-Type"] = "text/plain" if channel is Channel.BROWSER else "application/x-ndjson"
        end = rng.choice((b"\n", b"\r\n", b"\n\n"))
        body = end.join(line.body for line in lines) + (end if rng.random() < 0.5 else b"")
    if rng.random() < 0.4:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, 1, mtime=0)
    return Request(at_s, lines, path, headers, body)
