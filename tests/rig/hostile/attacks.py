"""The attacks: each says its bound and what it measured."""

import asyncio
import gzip
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

from tests.rig.hostile.clients import hold, honest, let_go, read_answer, request, send, worst_bodies
from tests.rig.hostile.collector import KEY, MIB, HostileCollector, hostile_collector
from tests.rig.outage.memory import bounds_mib
from tests.worlds.waiting import PAUSE_S, until

SMALL_CPU_MS: Final = 50
REPEATS: Final = 4


class Outcome(NamedTuple):
    """What an attack came to."""

    attack: str
    bound: str
    measured: str
    holds: bool


def memory_bound_mib(collector: HostileCollector) -> int:
    """The README's bound of the collector's resident memory."""
    return bounds_mib(collector.settings, 0)["collector"]


async def cpu_of_bodies() -> list[Outcome]:
    """CPU time of the worst bodies of 16 KB, and of 4 MiB of empty gzip members."""
    found = []
    empty = gzip.compress(b"", mtime=0)
    members = request(empty * (4 * MIB // len(empty)), is_gzip=True)
    async with hostile_collector() as collector:
        await send(collector, honest("warm"))
        attacks = [(name, SMALL_CPU_MS, body) for name, body in worst_bodies().items()]
        for name, bound_ms, body in [*attacks, ("4 MiB of empty gzip members", 10 * SMALL_CPU_MS, members)]:
            began_s = collector.cpu_s()
            statuses = {(await send(collector, body)).status for _ in range(REPEATS)}
            took_ms = (collector.cpu_s() - began_s) / REPEATS * 1000
            answers = ", ".join(map(str, sorted(statuses)))
            found.append(
                Outcome(
                    name,
                    f"{bound_ms} ms CPU",
                    f"{took_ms:.0f} ms, answer {answers}",
                    took_ms <= bound_ms and 0 not in statuses,
                )
            )
    return found


async def neighbours() -> list[Outcome]:
    """Large and compressed requests of an honest client while sixty hostile ones come at once."""
    async with hostile_collector() as collector:
        bodies = list(worst_bodies().values())
        hostile = [asyncio.create_task(send(collector, bodies[n % len(bodies)])) for n in range(60)]
        content = gzip.compress(b"x" * 20_000)
        waits_s = []
        for number in range(10):
            began_s = time.monotonic()
            answer = await send(collector, request(content, is_gzip=True) if number % 2 else honest(str(number)))
            assert answer.status == 200, answer
            waits_s.append(time.monotonic() - began_s)
        await asyncio.gather(*hostile)
        worst_s = max(waits_s)
    return [Outcome("60 worst bodies at once", "neighbours wait 5 s", f"{worst_s:.2f} s", worst_s <= 5)]


async def large_heads(connections: int = 600) -> list[Outcome]:
    """Connections with a hundred headers of 8 KB each, which do not end."""
    async with hostile_collector() as collector:
        before = collector.resident_bytes()
        start = b"GET / HTTP/1.1\r\nHost: x\r\n"
        fields = [b"A%d: %s\r\n" % (n, b"a" * 8000) for n in range(100)]
        held = await hold(collector, connections // 2, start + b"".join(fields))
        held += await hold(collector, connections // 2, start + fields[0] + fields[1][:-2])
        answer = await send(collector, honest("one"))
        grown_mib = (collector.resident_bytes() - before) / MIB
        let_go(held)
    bound_mib = connections / 16
    holds = grown_mib <= bound_mib and answer.status == 200
    name = f"{connections} connections with endless heads"
    return [Outcome(name, f"{bound_mib:.0f} MiB", f"{grown_mib:.0f} MiB, answer {answer.status}", holds)]


async def many_connections(descriptors: int = 256) -> list[Outcome]:
    """Twice as many idle and half-sent connections as there are descriptors; honest clients are served meanwhile."""
    async with hostile_collector(descriptors) as collector:
        held = await hold(collector, descriptors)
        held += await hold(collector, descriptors, b"POST /v1/events HTTP/1.1\r\nHost: x\r\n")
        statuses = [(await send(collector, honest(str(n)))).status for n in range(20)]
        open_now = collector.process.num_fds()
        let_go(held)
    good = statuses.count(200)
    return [
        Outcome(
            f"{2 * descriptors} idle connections, {descriptors} descriptors", "20 of 20 answered",
            f"{good} of 20, {open_now} descriptors in use", good == 20 and open_now <= descriptors,
        )
    ]  # fmt: skip


async def half_sent(connections: int = 50) -> list[Outcome]:
    """Heads and bodies that do not end are closed or answered at their deadlines."""
    async with hostile_collector(HEAD_TIMEOUT_S="1", REQUEST_TIMEOUT_S="1") as collector:
        held = await hold(collector, connections)
        held += await hold(collector, connections, b"POST /v1")
        held += await hold(collector, connections, request(b"x" * 100)[:-50])
        await until(lambda: _connections(collector, 3 * connections), PAUSE_S)
        began_s = time.monotonic()
        await until(lambda: _connections(collector, 0), PAUSE_S)
        took_s = time.monotonic() - began_s
        let_go(held)
    return [
        Outcome(
            f"{3 * connections} half-sent requests", "closed after 1 s, 4 with an answer", f"{took_s:.1f} s", took_s <= 10
        )
    ]


async def _connections(collector: HostileCollector, count: int) -> bool:
    return await collector.metric("instream_collector_connections") == count


BAD_HTTP: Final = (
    b"\x16\x03\x01\x02\x00\x01" + KEY.encode() + b"\r\n\r\n",
    b"POST /v1/events?key=" + KEY.encode() + b" HTTP/1.1\r\nContent-Length: 1\r\n\r\n{",
    b"POST /v1/events HTTP/1.1\r\nHost: x\r\nX-Write-Key " + KEY.encode() + b"\r\n\r\n",
    b"GET /" + KEY.encode() * 1000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"BREW /pot HTTP/1.1\r\nHost: x\r\nX-Write-Key: " + KEY.encode() + b"\r\nConnection: close\r\n\r\n",
    b"DELETE /v1/events HTTP/1.1\r\nHost: x\r\nX-Write-Key: " + KEY.encode() + b"\r\nConnection: close\r\n\r\n",
    b"GET /" + KEY.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
)
"""Requests that are no HTTP, or no request of ours; each shows the key."""


async def bad_http(each: int = 50) -> list[Outcome]:
    """Requests that cannot be read are answered in our form, and the log stays short and without their bytes."""
    async with hostile_collector() as collector:
        before = collector.log.stat().st_size
        answers = [await send(collector, bad) for bad in BAD_HTTP for _ in range(each)]
        told = collector.log.read_bytes()[before:]
    in_form = sum(isinstance(one.body, dict) and {"error", "detail"} == one.body.keys() for one in answers)
    with_cors = sum("Access-Control-Allow-Origin" in one.headers for one in answers)
    is_quiet = len(told) <= 4096 and KEY.encode() not in told and b"Traceback" not in told
    measured = f"{in_form} in our form, {with_cors} with CORS, {len(told)} bytes of log"
    return [
        Outcome(
            f"{len(answers)} requests of bad HTTP",
            "all; 4096 bytes",
            measured,
            in_form == with_cors == len(answers) and is_quiet,
        )
    ]


async def frozen_storage(rounds: int = 3) -> list[Outcome]:
    """Storage does not answer while clients send what they may; memory stays under the README's bound."""
    async with hostile_collector(
        MAX_BUFFERED_BYTES=str(32 * MIB), REQUEST_TIMEOUT_S="5", MAX_CONNECTIONS="400"
    ) as collector:
        await send(collector, honest("warm"))
        collector.freeze_services()
        noise = [
            request(b"\n".join(b"\xff" * 60_000 for _ in range(60))),
            request(b"\n".join(b"%064d" % n for n in range(9000))),
        ]
        noise.append(request(gzip.compress(b"\n".join(b"%0512d" % (n * 7919**40) for n in range(9000))), is_gzip=True))
        most = before = collector.resident_bytes()
        statuses: set[int] = set()
        for _ in range(rounds):
            flood = [asyncio.create_task(send(collector, noise[n % len(noise)])) for n in range(60)]
            while not all(task.done() for task in flood):
                most = max(most, collector.resident_bytes())
                await asyncio.sleep(PAUSE_S)
            statuses |= {task.result().status for task in flood}
        reason = await collector.ready()
        collector.thaw_services()
        bound = memory_bound_mib(collector)
    measured = f"{most / MIB:.0f} MiB ({before / MIB:.0f} before), answers {', '.join(map(str, sorted(statuses)))}"
    return [
        Outcome(
            "storage stands, bodies of every kind", f"{bound:.0f} MiB", measured, most <= bound * MIB and 503 in statuses
        ),
        Outcome("/ready meanwhile", "a reason", reason or "ready", bool(reason)),
    ]


async def too_often() -> list[Outcome]:
    """A client that sends more than its rate."""
    async with hostile_collector(KEY_REQUESTS_PER_S="5") as collector:
        answers = await asyncio.gather(*(send(collector, honest(str(n))) for n in range(30)))
    refused = [answer for answer in answers if answer.status == 429]
    holds = bool(refused) and all("Retry-After" in answer.headers for answer in refused)
    return [Outcome("30 requests at 5 a second", "some 429", f"{len(refused)} of them 429", holds)]


async def pipelined() -> list[Outcome]:
    """Thousands of requests on one connection, which reads no answer."""
    async with hostile_collector() as collector:
        before = collector.resident_bytes()
        held = await hold(collector, 50, b"OPTIONS /v1/events HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000)
        reader, writer = await asyncio.open_connection("127.0.0.1", collector.port)
        writer.write(honest("one"))
        answer = await read_answer(reader)
        grown_mib = (collector.resident_bytes() - before) / MIB
        let_go([*held, writer])
    holds = grown_mib <= 50 and answer.status == 200
    return [
        Outcome("50 connections with 20,000 requests each", "50 MiB", f"{grown_mib:.0f} MiB, answer {answer.status}", holds)
    ]


ATTACKS: Final[tuple[Callable[[], Coroutine[Any, Any, list[Outcome]]], ...]] = (
    cpu_of_bodies, neighbours, large_heads, many_connections, half_sent, pipelined, bad_http, frozen_storage, too_often,
)  # fmt: skip
