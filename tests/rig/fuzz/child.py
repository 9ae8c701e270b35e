"""`python -m tests.rig.fuzz.child`: the process that plays cases, with bounded memory; its parent survives whatever ends it.

It plays a slice of each target in turn, tells its parent about each slice in one line of JSON, and writes down which case it
plays before it plays it. Its parent reads that place where the process ended or stands still.
"""

import importlib
import logging
import mmap
import resource
import struct
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from tests.rig.fuzz.one_case import BUDGET_S, Finding, play
from tests.rig.fuzz.target import Target

MOST_BYTES: Final = 2 * 1024 * 1024 * 1024
"""Address space that a slice may take beyond what the process has; the threads of the collector reserve some."""
SLICE_S: Final = 0.5
PLACE: Final = struct.Struct("<IQ")
"""Index of the target, and seed."""
NOWHERE: Final = (2**32 - 1, 0)
"""The place before the first case."""
SHOWN: Final = 20
"""Findings of a slice that are told in full."""


class Orders(msgspec.Struct, frozen=True):
    """What the child is to do; on its command line, JSON."""

    catalogue: str
    """A module with `TARGETS`."""
    next_seeds: dict[str, int]
    """Target -> its first seed; the targets in this order."""
    place_fd: int
    budget_s: float = BUDGET_S


class Slice(msgspec.Struct, frozen=True):
    """What some cases of one target came to."""

    target: str
    cases: int
    next_seed: int
    uncaught: int
    slowest_s: float
    findings: list[Finding]
    """The first of each kind."""


def run(orders: Orders) -> None:
    """Play until the parent ends the process."""
    known: Mapping[str, Target] = importlib.import_module(orders.catalogue).TARGETS
    targets = [known[name] for name in orders.next_seeds]
    for target in targets:
        for sample in target.samples:
            target.read(sample)
    place = mmap.mmap(orders.place_fd, PLACE.size)
    seeds = dict(orders.next_seeds)
    while True:
        for index, target in enumerate(targets):
            told = _slice(target, index, seeds[target.name], place, orders.budget_s)
            seeds[target.name] = told.next_seed
            sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
            sys.stdout.flush()


def _slice(target: Target, index: int, first: int, place: mmap.mmap, budget_s: float) -> Slice:
    _bound_memory()
    ends_s = time.monotonic() + SLICE_S * target.weight
    seed, uncaught, slowest_s = first, 0, 0.0
    kinds: dict[str, Finding] = {}
    while time.monotonic() < ends_s:
        PLACE.pack_into(place, 0, index, seed)
        played = play(target, seed, budget_s)
        slowest_s = max(slowest_s, played.cpu_s)
        if played.finding is not None:
            uncaught += 1
            kinds.setdefault(played.finding.what, played.finding)
        seed += 1
    return Slice(target.name, seed - first, seed, uncaught, slowest_s, list(kinds.values())[:SHOWN])


def _bound_memory() -> None:
    """A length that lies then ends in a MemoryError, or ends the process."""
    status = Path("/proc/self/status").read_text()
    held = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (held + MOST_BYTES, resource.RLIM_INFINITY))


def be_quiet() -> None:
    """The product logs what it refuses; here that is everything."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    logging.lastResort = None
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    be_quiet()
    run(msgspec.json.decode(sys.argv[1], type=Orders))
