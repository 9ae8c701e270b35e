"""Table delivery_log in memory, behind what a deliverer takes for a connection."""

import asyncio
from types import SimpleNamespace
from typing import Any

from app.core.statements import LOCK, LogRow


class MemoryWarehouse:
    """One session after the other; transactions without rows need no more of a warehouse than this."""

    closed = False

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.sessions = 0
        self.free = asyncio.Event()
        self.free.set()
        self.locking = asyncio.Event()
        self._open: list[tuple[Any, ...]] = []

    async def connect(self, _: str) -> "MemoryWarehouse":
        self.sessions += 1
        return self

    async def execute(self, text: bytes, parameters: tuple[Any, ...] | None) -> Any:
        found: list[tuple[Any, ...]] = []
        if text == LOCK.text.encode():
            self.locking.set()
            await self.free.wait()
        elif text.startswith(b"INSERT"):
            width = len(LogRow._fields)
            values = parameters or ()
            self._open += [LogRow(*values[at : at + width])[2:4] for at in range(0, len(values), width)]
        elif b"MAX(number)" in text:
            found = list(dict(sorted(self.log)).items())
        else:
            raise AssertionError(f"nobody expects {text!r}")

        async def fetchall() -> list[tuple[Any, ...]]:
            return found

        return SimpleNamespace(description=True, fetchall=fetchall)

    async def commit(self) -> None:
        self.log += self._open
        self._open = []

    async def rollback(self) -> None:
        self._open = []

    async def close(self) -> None:
        self.sessions -= 1
