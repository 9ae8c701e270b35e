"""Checks over HTTP whether a process answers, with only a socket."""

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

PROBE_TIMEOUT_S = 2.0


async def read_url(url: str) -> tuple[int, bytes] | None:
    """Status and content of a GET of `url` (plain http); None without an answer within two seconds."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
                writer.write(request.encode())
                head, _, content = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    status = head.split(maxsplit=2)
    return (int(status[1]), content) if len(status) > 1 and status[1].isdigit() else None


async def answers_ok(url: str) -> bool:
    """Whether a GET of `url` (plain http) answers with a status below 400 within two seconds."""
    answer = await read_url(url)
    return answer is not None and answer[0] < 400


async def await_true(ask: Callable[[], Awaitable[bool]], pause_s: float = 0.1) -> None:
    """Return once `ask` returns True; without a limit, so wrap the call in a timeout."""
    while not await ask():  # noqa: ASYNC110 - another process answers: there is no event to wait for
        await asyncio.sleep(pause_s)
