"""`make status-drill`: a stack under light load, every fault planted once, and how soon `instream status` names each."""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from app.errors import InstreamError
from app.local.stack.life import Home
from app.local.stack.settings import PORT_VARIABLES
from app.local.traffic.run import TrafficPlan, run_traffic
from tests.rig.status.drill import INSTREAM, Result, environment, strike, table, until_healthy
from tests.rig.status.faults import FAULTS, Planted, stack_in

NAMED_WITHIN_S = 15.0
WELL_WITHIN_S = 120.0
RATE = 20
SETTINGS = dict.fromkeys(PORT_VARIABLES.values(), "0") | {
    "INSTREAM_JOIN_WINDOW_S": "5",
    "INSTREAM_JOIN_GRACE_S": "3",
    "INSTREAM_JOIN_REORDER_S": "2",
    "INSTREAM_COMMIT_INTERVAL_S": "3",
    "INSTREAM_IDLE_COMMIT_INTERVAL_S": "5",
    "INSTREAM_DELIVERY_INTERVAL_S": "1",
    "INSTREAM_AUDIT_INTERVAL_S": "5",
    "INSTREAM_AUDIT_GRACE_S": "20",
    "INSTREAM_RESTART_HEALTHY_S": "15",
}


async def load(home: Home) -> None:
    """Light traffic without end; what a fault refuses is not sent again."""
    seed = 0
    while True:
        seed += 1
        with suppress(InstreamError, OSError):
            await run_traffic(stack_in(home), TrafficPlan(events=RATE * 600, rate=RATE, seed=seed, patience_s=5))
        await asyncio.sleep(1)


async def drill(home: Home, caller: Mapping[str, str], faults: tuple[Planted, ...]) -> list[Result]:
    """Plant one after the other; each begins when all is well again."""
    results: list[Result] = []
    traffic = asyncio.create_task(load(home))
    try:
        for fault in faults:
            well = await until_healthy(caller, WELL_WITHIN_S)
            if well.code:
                print(f"before '{fault.name}' not all is well: {well.answer['problems']}", flush=True)
            results.append(await strike(fault, home, caller, NAMED_WITHIN_S))
            print(table(results[-1:]).splitlines()[1], flush=True)
        well = await until_healthy(caller, WELL_WITHIN_S)
        print(f"at the end: exit {well.code}, {well.answer['problems']}", flush=True)
    finally:
        traffic.cancel()
    return results


def main() -> int:
    """Run the drill. Returns: 0 if every fault was named in time with the right stage and exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.rig.status", description=__doc__)
    parser.add_argument("--only", default="", help="faults whose name this pattern matches")
    words = parser.parse_args()
    faults = tuple(fault for fault in FAULTS if re.search(words.only, fault.name))
    with tempfile.TemporaryDirectory(prefix="instream-status-") as folder:
        home = Path(folder) / "home"
        caller = environment(home, SETTINGS)
        subprocess.run([INSTREAM, "up"], env=caller, check=True)
        try:
            results = asyncio.run(drill(Home(home), caller, faults))
        finally:
            subprocess.run([INSTREAM, "down"], env=caller, check=False)
    missed = sum(result.named_after_s is None for result in results)
    print(table(results))
    print(f"{len(results) - missed} of {len(results)} faults were named within {NAMED_WITHIN_S:.0f} s with their stage")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
