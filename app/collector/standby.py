"""How a spare collector learns that its turn has come: by one signal, which may be sent before it listens for it."""

import asyncio
import contextlib
import os
import signal
from typing import Final

SPARE_FLAG: Final = "--spare"
"""Makes `python -m app.collector` get everything ready and then wait for its turn before it listens."""
TURN: Final = signal.SIGUSR1
"""Says that the collector is dead. A spare is started with it blocked, so that one that comes too early waits."""
ORPHAN_CHECK_S: Final = 5.0


async def await_turn(parent: int, check_s: float = ORPHAN_CHECK_S) -> bool:
    """Wait for the turn.

    Args:
        parent: the pid of the process that would tell it.
        check_s: how often to look whether that one still lives.

    Returns: True at its turn; False where nobody is left to tell it.
    """
    turn = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(TURN, turn.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {TURN})
    while not turn.is_set() and os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(check_s):
                await turn.wait()
    return turn.is_set()
