"""Plays thousands of histories, or narrates one: `make simulate SEEDS=1000 FROM=1`, `make simulate SEED=7`.

With UPGRADE=1 each history has this version and the next one, rolled out and taken back while the faults go on.

Each history is decided by its seed: crashes, lost and repeated calls, zombies, resharding, lost stores. A seed whose history
breaks an invariant is printed with what it broke; playing it again gives the very same history.
"""

import argparse
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import structlog

from tests.simulation.fault_coverage import Coverage
from tests.simulation.history import History, Narrate, play
from tests.simulation.upgrade import OF_UPGRADES, next_version_folder, play_upgrade
from tests.simulation.versions import both_versions

TOLD_EVERY_S = 10.0
SEEDS_AT_ONCE = 10


def quiet() -> None:
    """The pipeline's own log says little that the narration does not."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def play_one(seed: int, folder: Path | None, narrate: Narrate = None) -> History:
    """One history; with the next version in a folder, where there is one."""
    return play(seed, narrate) if folder is None else play_upgrade(both_versions(folder), seed, narrate)


def play_some(folder: Path | None, seeds: range) -> list[History]:
    """Some histories, one after the other."""
    quiet()
    return [play_one(seed, folder) for seed in seeds]


def narrate(seed: int, folder: Path | None) -> int:
    """Tell the history of one seed."""
    quiet()
    history = play_one(seed, folder, print)
    print(f"\nseed {seed}: {history.events} lines acknowledged, {history.virtual_s:.0f} s, history {history.digest}")
    for name, count in sorted(history.counts.items()):
        print(f"  {count:>5}  {name}")
    return _verdict([history])


def play_many(first: int, count: int, processes: int, folder: Path | None) -> int:
    """Play `count` seeds from `first` on, several at a time, with progress and a table at the end."""
    parts = [range(at, min(at + SEEDS_AT_ONCE, first + count)) for at in range(first, first + count, SEEDS_AT_ONCE)]
    coverage, broken, lines, played = Coverage(() if folder is None else OF_UPGRADES), [], 0, 0
    started_s = told_s = time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        for histories in pool.map(partial(play_some, folder), parts):
            for history in histories:
                coverage.add(history.counts)
                lines += history.events
                if history.violations:
                    broken.append(history)
                    _tell(history, "" if folder is None else " UPGRADE=1")
            played += len(histories)
            if time.monotonic() - told_s > TOLD_EVERY_S:
                told_s = time.monotonic()
                print(f"{played:,} of {count:,} histories, {len(broken)} broken, {told_s - started_s:.0f} s", flush=True)
    print(coverage.table())
    print(f"{count:,} histories with {lines:,} lines in {time.monotonic() - started_s:.0f} s")
    for gap in coverage.gaps() if count >= 100 else ():
        print(f"TOO RARE: {gap}")
    return _verdict(broken) or bool(count >= 100 and coverage.gaps())


def _tell(history: History, mode: str) -> None:
    for violation in history.violations[:5]:
        print(f"seed {history.seed}: {violation}", flush=True)
    print(f"  again, told: make simulate SEED={history.seed}{mode}", flush=True)


def _verdict(histories: Iterable[History]) -> int:
    kinds = Counter(v.split(":")[0] for history in histories for v in history.violations)
    print(f"VIOLATIONS: {dict(kinds)}" if kinds else "no violations")
    return 1 if kinds else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many histories")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="narrate this one instead")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--upgrade", action="store_true", help="this version and the next one, mixed")
    words = parser.parse_args()
    with next_version_folder() if words.upgrade else nullcontext() as folder:
        if words.seed is not None:
            return narrate(words.seed, folder)
        return play_many(words.first, words.seeds, words.processes, folder)


if __name__ == "__main__":
    sys.exit(main())
