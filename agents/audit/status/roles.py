"""Asks each worker's /ready, and the audit's metrics, all at once and each for a short time."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from app.core.status.seen import RoleSeen, Worker

ANSWER_S: Final = 1.0
"""A page that does not answer for so long is asked once more, and then it is silent."""
ALARMS: Final = ("lost", "excess", "damaged")
"""Findings of the audit that time does not mend."""
_OPEN: Final = re.compile(r'^instream_audit_open_batches\{found="(\w+)"\} ([0-9.e+]+)$', re.MULTILINE)
_REASON_LENGTH: Final = 300


class Page(NamedTuple):
    """The answer to a GET."""

    status: int
    """0 without an answer."""
    body: bytes = b""
    is_refused: bool = False
    """Nobody listens there."""


async def read_page(url: str, limit_s: float = ANSWER_S) -> Page:
    """GET a page over plain http."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
            try:
                request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
                writer.write(request.encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
    except ConnectionRefusedError:
        return Page(0, is_refused=True)
    except (OSError, TimeoutError):
        return Page(0)
    words = head.split(maxsplit=2)
    return Page(int(words[1]), body) if len(words) > 1 and words[1].isdigit() else Page(0)


async def ask_roles(workers: Sequence[Worker]) -> tuple[RoleSeen, ...]:
    """What each worker says of itself."""
    return tuple(await asyncio.gather(*(_ask(worker) for worker in workers)))


async def _ask(worker: Worker) -> RoleSeen:
    process = worker.process
    if process is not None and (process.pid is None or process.is_frozen):
        return RoleSeen(role=worker.role, url=worker.url, answers=False, process=process)
    page = await read_page(f"{worker.url}/ready")
    if not page.status and not page.is_refused:
        page = await read_page(f"{worker.url}/ready")
    return RoleSeen(
        role=worker.role, url=worker.url, answers=bool(page.status), is_refused=page.is_refused,
        waits_for=_waits_for(page), process=process,
    )  # fmt: skip


def _waits_for(page: Page) -> str | None:
    if page.status < 400:  # 0 too: no answer
        return None
    try:
        reason = json.loads(page.body)["reason"]
    except (ValueError, LookupError, TypeError):
        return f"/ready answers {page.status}"
    return " ".join(str(reason).split())[:_REASON_LENGTH]


async def ask_alarms(workers: Sequence[Worker]) -> Mapping[str, int]:
    """Finding -> batches, of the last round of the audit; empty if it does not answer."""
    found: dict[str, int] = {}
    for worker in workers:
        if worker.role == "audit" and (worker.process is None or worker.process.pid):
            page = await read_page(f"{worker.url}/metrics")
            for name, value in _OPEN.findall(page.body.decode(errors="replace")):
                if name in ALARMS:
                    found[name] = found.get(name, 0) + round(float(value))
    return found
