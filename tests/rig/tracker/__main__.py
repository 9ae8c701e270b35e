"""`python -m tests.rig.tracker --sessions 220 --seed 1`: scripted readers of tagged pages in headless Chromium.

The pages' clock is the test's, so 90 s take no time; everything else is the browser's own: fetchLater, the back/forward
cache, crashes, and its death. Exit codes: 0 all is as it must be, 1 it is not, 2 there is no Chromium.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.rig.tracker.sessions import ENDS, Outcome, Readers
from tests.rig.tracker.site import Site
from tests.worlds.chromium import find_chromium
from tests.worlds.collector import CollectorWorld

LEAST_SHARE = 0.995


async def run(chromium: str, folder: Path, sessions: int, seed: int, ends: tuple[str, ...] = ENDS) -> Outcome:
    """Play `sessions` sessions, their ends in turn, and judge them."""
    async with Site(CollectorWorld()).running() as site, Readers(site, chromium, folder).reading() as readers:
        for number in range(sessions):
            await readers.play(number, seed * 100_003 + number, ends[number % len(ends)])
        await readers.collect()
        return await readers.judge()


def tell(outcome: Outcome) -> bool:
    """Print what was found; whether it is good."""
    print(f"{'page views':<14}{'read':>6}{'arrived':>9}")
    for end, count in outcome.sessions.items():
        print(f"{end:<14}{count:>6}{outcome.arrived[end]:>9}")
    read, arrived = outcome.sessions.total(), outcome.arrived.total()
    print(f"engagement of {arrived} of {read} page views arrived; {outcome.copies} copies for dedup")
    print(f"engaged_ms is wrong by at most {max(outcome.errors_ms, default=0)} ms")
    for fault in outcome.faults:
        print(fault)
    doubled_or_wrong = [fault for fault in outcome.faults if "no engagement" not in fault]
    return arrived >= LEAST_SHARE * read and not doubled_or_wrong


def main() -> int:
    """Find a browser and play."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=220)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=ENDS)
    given = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        print("there is no Chromium on this machine: apt-get install chromium", file=sys.stderr)
        return 2
    ends = (given.only,) if given.only else ENDS
    with tempfile.TemporaryDirectory(prefix="instream-tracker-", ignore_cleanup_errors=True) as folder:
        outcome = asyncio.run(run(chromium, Path(folder), given.sessions, given.seed, ends))
    return 0 if tell(outcome) else 1


if __name__ == "__main__":
    sys.exit(main())
