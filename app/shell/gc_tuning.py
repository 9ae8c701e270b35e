"""Python's garbage collector in a worker: a long life with many objects, of which next to none are ever in cycles.

An ETL worker holds an index entry for every event in the open window, and makes thousands of small objects a step. By
default every 700 of them start a collection, and now and then one that walks through everything the process holds, to find
nothing: a quarter of the CPU (19 against 14 us an event). Reference counts free what a step leaves; what really is in
cycles (exceptions with their frames, connections) is little, and found later.
"""

import gc
from typing import Final

THRESHOLDS: Final = (50_000, 20, 100)
"""Allocations to a collection of the young, young ones to a middle one, middle ones to a full one."""


def collect_seldom() -> None:
    """Let the collector run far less often."""
    gc.set_threshold(*THRESHOLDS)


def spare_what_lives() -> None:
    """Take what is alive now - modules, tables just loaded - out of every later collection; counts still free it."""
    gc.collect()
    gc.freeze()
