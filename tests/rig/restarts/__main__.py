"""`python -m tests.rig.restarts --kills 5`: measures how long clients wait for a killed collector.

The tests show why the wait is short: the spare was there before the death, and no step before the next answer waits for a
timer. The length of the wait depends on the machine, so it is measured here and asserted nowhere.
"""

import asyncio
import os
import secrets
import signal
import time
from typing import Annotated, Final

import typer

from app.cli.show import Exit, JsonOption, log_to_stderr, print_json, print_table
from app.local.stack.life import Home
from app.local.stack.own_stack import own_stack
from app.local.stack.spare import SPARE
from app.local.stack.stack_file import Stack, home_of_environment, read_stack
from app.progress import ProgressLines
from tests.rig.restarts.clients import Clients
from tests.worlds.waiting import PAUSE_S, until

PROMISED_S: Final = 3.0
WARM_S: Final = 5.0
"""After this time a spare is warm, on an idle machine."""


async def measure(home: Home, stack: Stack, kills: int, say: ProgressLines) -> list[float]:
    """Kill the collector `kills` times. Returns: for each kill, seconds until all clients were answered again."""
    took_s = []
    async with Clients(stack.collector_url, f"restarts-{secrets.token_hex(4)}") as clients:
        for number in range(1, kills + 1):
            await until(lambda: _spare(home), PAUSE_S)
            await asyncio.sleep(WARM_S)
            found = read_stack(home)
            assert found is not None
            os.kill(found.running_pid("collector"), signal.SIGKILL)
            since_s = time.monotonic()
            await clients.all_answered()
            took_s.append(round(time.monotonic() - since_s, 2))
            say(f"kill {number}: all clients are answered after {took_s[-1]:.2f} s")
    return took_s


def _spare(home: Home) -> int | None:
    life = home.read_life()
    return next((record.pid for record in life.processes if record.name == SPARE), None) if life else None


def restarts(
    kills: Annotated[int, typer.Option(help="Number of kills of the collector.", min=1, max=100)] = 5,
    as_json: JsonOption = False,
) -> None:
    """Kill the collector of a stack of its own while clients post, and show how long they waited.

    Exit codes: 0 all were answered within three seconds, 1 not always.
    """
    log_to_stderr()
    say = ProgressLines()
    with own_stack({"INSTREAM_RESTART_HEALTHY_S": "1"}, say) as stack:
        took_s = asyncio.run(measure(home_of_environment(), stack, kills, say))
    if as_json:
        print_json(took_s)
    else:
        print_table(
            "a killed collector", ("", "seconds"),
            [(f"kill {number}", f"{seconds:.2f}") for number, seconds in enumerate(took_s, start=1)],
        )  # fmt: skip
    if max(took_s) > PROMISED_S:
        raise typer.Exit(Exit.FAILURE)


if __name__ == "__main__":
    typer.run(restarts)
