"""Plays thousands of histories, or narrates one: `make simulate SEEDS=1000 FROM=1`, `make simulate SEED=7`.

With UPGRADE=1 each history has this version and the next one, rolled out and taken back while the faults go on.
With DAMAGE=1 stored copies are damaged behind each history, and repairs mend them.

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
from typing import NamedTuple

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import structlog

from tests.simulation.damage import DamagedWorld
from tests.simulation.fault_coverage import Coverage
from tests.simulation.history import History, Narrate, play
from tests.simulation.upgrade import OF_UPGRADES, next_version_folder, play_upgrade
from tests.simulation.versions import both_versions
from tests.simulation.world import World

TOLD_EVERY_S = 10.0
SEEDS_AT_ONCE = 10


def quiet() -> None:
    """The pipeline's own log says little that the narration does not."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


class Mode(NamedTuple):
    """The kind of histories."""

    words: str = ""
    """The mode on the command line of `make simulate`."""
    next_version: Path | None = None
    """The next version's folder, for upgrades."""


DAMAGE = " DAMAGE=1"


def play_one(seed: int, mode: Mode, narrate: Narrate = None) -> History:
    """One history."""
    if mode.next_version is not None:
        return play_upgrade(both_versions(mode.next_version), seed, narrate)
    return play(seed, narrate, DamagedWorld if mode.words == DAMAGE else World)


def play_some(mode: Mode, seeds: range) -> list[History]:
    """Some histories, one after the other."""
    quiet()
    return [play_one(seed, mode) for seed in seeds]


def narrate(seed: int, mode: Mode) -> int:
    """Tell the history of one seed."""
    quiet()
    history = play_one(seed, mode, print)
    print(f"\nseed {seed}: {history.events} lines acknowledged, {history.virtual_s:.0f} s, history {history.digest}")
    for name, count in sorted(history.counts.items()):
        print(f"  {count:>5}  {name}")
    return _verdict([history])


def play_many(first: int, count: int, processes: int, mode: Mode) -> int:
    """Play `count` seeds from `first` on, several at a time, with progress and a table at the end."""
    parts = [range(at, min(at + SEEDS_AT_ONCE, first + count)) for at in range(first, first + count, SEEDS_AT_ONCE)]
    coverage, broken, lines, played = Coverage(() if mode.next_version is None else OF_UPGRADES), [], 0, 0
    started_s = told_s = time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        for histories in pool.map(partial(play_some, mode), parts):
            for history in histories:
                coverage.add(history.counts)
                lines += history.events
                if history.violations:
                    broken.append(history)
                    _tell(history, mode.words)
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
    parser.add_argument("--damage", action="store_true", help="damage behind each history, and repairs")
    words = parser.parse_args()
    with next_version_folder() if words.upgrade else nullcontext() as folder:
        mode = Mode(" UPGRADE=1", folder) if words.upgrade else Mode(DAMAGE if words.damage else "")
        if words.seed is not None:
            return narrate(words.seed, mode)
        return play_many(words.first, words.seeds, words.processes, mode)


if __name__ == "__main__":
    sys.exit(main())
