"""The signal by which a spare collector learns that its turn has come; it may be sent before the spare listens for it."""

import asyncio
import contextlib
import os
import signal
from typing import Final

SPARE_FLAG: Final = "--spare"
"""The flag of a spare: `python -m app.collector` gets everything ready, and waits for its turn before it listens."""
TURN: Final = signal.SIGUSR1
"""The signal "the collector is dead". A spare starts with the signal blocked, so that an early signal waits."""
ORPHAN_CHECK_S: Final = 5.0


async def await_turn(parent: int, check_s: float = ORPHAN_CHECK_S) -> bool:
    """Wait for the turn.

    Args:
        parent: the pid of the process that sends the signal.
        check_s: seconds between two checks whether the parent still lives.

    Returns: True at its turn; False if the parent has ended.
    """
    turn = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(TURN, turn.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {TURN})
    while not turn.is_set() and os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(check_s):
                await turn.wait()
    return turn.is_set()
