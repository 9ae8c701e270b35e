"""`collector` and `collector-ndjson`: requests of one event, and of a hundred, over kept-alive connections.

The collector is the real server in a process of its own; S3, registry and Kinesis are in its memory and take 20 ms a call.
This process posts, on the other cores. In the first round each connection posts as soon as it is answered; all connections
of one batch are answered at once. In the second round requests have times of their own, at half the rate of the first round:
it measures the time of answers.
"""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from typing import Final

import psutil

from app.bench.cluster import ROOT, _await
from app.bench.measure import WORK_CORE, BenchRun, pin
from app.bench.plan import BenchPlan
from app.errors import BenchmarkWrong
from app.local.stack.ports import own_port

SINGLE_CONNECTIONS: Final = 1500
BATCH_CONNECTIONS: Final = 300
NDJSON_LINES: Final = 100
_EVENT: Final = (
    '{"event_id":"%s","event_type":"page_view","page_view_id":"pv-%s","occurred_at":1750000000000,"visitor_id":"visitor-%s",'
    '"url":"https://www.example.com/politics/123/the-title-of-an-article-as-it-stands-in-its-address?utm_campaign=autumn",'
    '"referrer":"https://www.google.com/","article_id":"article-17","author_id":"author-5","section":"politics",'
    '"properties":{"layout":"wide","experiment":7,"consent":"full"}}'
)
_AGENT: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
)


class LoadClient(asyncio.Protocol):
    """One connection: posts, waits for the answer, asks the load for the next request."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._sent_s = 0.0
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._load.free(self)

    def data_received(self, data: bytes) -> None:
        """Take an answer."""
        self._buffer += data
        if b'"batch_id"' in self._buffer and self._buffer.endswith(b"}"):
            self._load.answered(self._buffer.startswith(b"HTTP/1.1 200"), time.perf_counter() - self._sent_s)
            self._buffer = b""
            self._load.free(self)
        elif b'"error"' in self._buffer:
            self._load.answered(False, 0.0)

    def post(self, body: bytes, due_s: float) -> None:
        """Send a request that was due at `due_s`; the time of its answer counts from then."""
        assert self._transport is not None
        self._sent_s = due_s
        self._transport.write(body)

    def close(self) -> None:
        """Hang up."""
        assert self._transport is not None
        self._transport.close()


class Load:
    """A number of requests over some connections.

    Each posts again once it is answered, or, at `per_s`, when a request is due.
    """

    def __init__(self, requests: int, lines: int, per_s: float | None = None) -> None:
        self._left = requests
        self._waiting = requests
        self._lines = lines
        self._serial = 0
        self._per_s = per_s
        self._idle: list[LoadClient] = []
        self.took_s: list[float] = []
        self.refused = 0
        self.done = asyncio.Event()

    def free(self, client: LoadClient) -> None:
        """Note a connection that is idle."""
        if self._per_s is not None:
            self._idle.append(client)
        elif self._left:
            client.post(self._next_body(), time.perf_counter())
        else:
            client.close()

    def _next_body(self) -> bytes:
        """The next request, whole."""
        self._left -= 1
        self._serial += self._lines
        ids = [f"{self._serial - n:016x}" for n in range(self._lines)]
        body = "\n".join([_EVENT % (name, name, name) for name in ids]).encode()
        kind = "application/json" if self._lines == 1 else "application/x-ndjson"
        head = (
            f"POST /v1/events HTTP/1.1\r\nHost: bench\r\nX-Write-Key: bench\r\nContent-Type: {kind}\r\n"
            f"User-Agent: {_AGENT}\r\nAccept: */*\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def answered(self, ok: bool, took_s: float) -> None:
        """Count an answer."""
        self.refused += not ok
        self.took_s.append(took_s)
        self._waiting -= 1
        if not self._waiting:
            self.done.set()

    async def run(self, port: int, connections: int) -> None:
        """Post everything."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            await loop.create_connection(lambda: LoadClient(self), "127.0.0.1", port)
        if self._per_s is not None:
            await self._pace(self._per_s)
        await self.done.wait()
        for client in self._idle:
            client.close()

    async def _pace(self, per_s: float) -> None:
        """Post at even times over an idle connection; post late if none is idle."""
        start_s, number = time.perf_counter(), 0
        while self._left:
            due_s = start_s + number / per_s
            if due_s > time.perf_counter() or not self._idle:
                await asyncio.sleep(0.001)
                continue
            self._idle.pop().post(self._next_body(), due_s)
            number += 1


def run_single(plan: BenchPlan) -> list[BenchRun]:
    """Requests of one event."""
    return [_run_once(plan, plan.events, 1, SINGLE_CONNECTIONS) for _ in range(plan.repeats)]


def run_ndjson(plan: BenchPlan) -> list[BenchRun]:
    """Requests of a hundred events."""
    requests = max(1, plan.events // NDJSON_LINES)
    return [_run_once(plan, requests, NDJSON_LINES, BATCH_CONNECTIONS) for _ in range(plan.repeats)]


def _run_once(plan: BenchPlan, requests: int, lines: int, connections: int) -> BenchRun:
    connections = min(connections, requests)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    port = own_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "app.bench.stages.collector_server", str(port)], cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        pin(server.pid, WORK_CORE)
        pin(os.getpid(), None)
        _await(f"http://127.0.0.1:{port}/ready")
        process = psutil.Process(server.pid)
        warm = max(1, requests // 10)
        asyncio.run(_drive(port, warm, lines, connections))
        with plan.profiled(server.pid):
            before, started_s = process.cpu_times(), time.perf_counter()
            full = asyncio.run(_drive(port, requests, lines, connections))
            after, wall_s = process.cpu_times(), time.perf_counter() - started_s
        half_requests = max(1, requests // 2)
        half = asyncio.run(_drive(port, half_requests, lines, connections, requests / wall_s / 2))
        rss = process.memory_info().rss
        server.send_signal(signal.SIGTERM)
        kept = int(server.communicate(timeout=30)[0])
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    sent = (warm + requests + half_requests) * lines
    if full.refused or half.refused or kept != sent:
        raise BenchmarkWrong(f"{kept} of {sent} events were kept, {full.refused + half.refused} requests refused")
    cpu_s = after.user + after.system - before.user - before.system
    return BenchRun(
        events=requests * lines, cpu_s=cpu_s, wall_s=wall_s, peak_rss_bytes=rss,
        more={
            "requests_per_cpu_s": requests / max(0.01, cpu_s), "requests_per_s": requests / wall_s,
            "full_p99_ms": _p99_ms(full.took_s), "half_p99_ms": _p99_ms(half.took_s),
        },
    )  # fmt: skip


async def _drive(port: int, requests: int, lines: int, connections: int, per_s: float | None = None) -> Load:
    load = Load(requests, lines, per_s)
    await load.run(port, connections)
    return load


def _p99_ms(took_s: list[float]) -> float:
    return 1000 * sorted(took_s)[max(0, int(len(took_s) * 0.99) - 1)]
