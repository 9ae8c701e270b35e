"""What a worker's pages say of it: ready, the reason why it waits, silence, and nobody there."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from agents.audit.status.roles import ask_alarms, ask_roles
from app.core.status.seen import ProcessSeen, Worker

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def page(status: int, body: str, hangs: asyncio.Event | None = None) -> AsyncIterator[str]:
    """A worker whose every page has this answer; with `hangs` it takes connections and answers when that is set."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        if hangs is not None:
            await hangs.wait()
        writer.write(f"HTTP/1.1 {status} X\r\nConnection: close\r\n\r\n{body}".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        if hangs is not None:
            hangs.set()
        server.close()


@pytest.mark.parametrize(
    ("status", "body", "waits_for"),
    [
        (200, '{"status": "ready"}', None),
        (503, json.dumps({"status": "waiting", "reason": "warehouse,\n disk full"}), "warehouse, disk full"),
        (500, "oops", "/ready answers 500"),
        (503, '["reason"]', "/ready answers 503"),
    ],
)
async def test_a_worker_tells_why_it_waits(status: int, body: str, waits_for: str | None) -> None:
    async with page(status, body) as url:
        (seen,) = await ask_roles([Worker("etl", url)])
    assert (seen.answers, seen.waits_for) == (True, waits_for)


async def test_a_worker_that_does_not_answer_holds_nobody_up() -> None:
    async with page(200, "", hangs=asyncio.Event()) as silent, page(200, "{}") as ready:
        seen = await ask_roles([Worker("sink", silent), Worker("etl", ready)])
    assert [(one.answers, one.is_refused) for one in seen] == [(False, False), (True, False)]


async def test_a_worker_that_is_not_there_is_told_from_one_that_is_silent() -> None:
    async with page(200, "{}") as url:
        pass
    (seen,) = await ask_roles([Worker("sink", url)])
    assert (seen.answers, seen.is_refused) == (False, True)


async def test_a_frozen_or_dead_process_is_not_asked() -> None:
    async with page(200, "{}") as url:
        seen = await ask_roles([
            Worker("sink", url, ProcessSeen(pid=7, is_frozen=True)), Worker("etl", url, ProcessSeen(pid=None)),
        ])  # fmt: skip
    assert [one.answers for one in seen] == [False, False]


async def test_the_audits_last_round_is_read_from_its_metrics() -> None:
    metrics = "\n".join([
        "# TYPE instream_audit_open_batches gauge", 'instream_audit_open_batches{found="judged"} 9.0',
        'instream_audit_open_batches{found="lost"} 2.0', 'instream_audit_open_batches{found="excess"} 1.0', "",
    ])  # fmt: skip
    async with page(200, metrics) as url:
        assert await ask_alarms([Worker("audit", url), Worker("etl", url)]) == {"lost": 2, "excess": 1}
