"""Python's garbage collector in a role: the process lives long and has many objects, and almost none are in cycles.

An ETL worker holds an index entry for every event in the open window, and makes thousands of small objects a step. By
default every 700 of them start a collection. Some collections walk through all objects of the process and find nothing: this
takes a quarter of the CPU (19 against 14 us an event). Reference counts free the objects of a step. The few objects in
cycles (exceptions with their frames, connections) are found later. A collector makes fifty thousand objects of one small
hostile body; with the defaults they cost it four times as much.
"""

import gc
from typing import Final

THRESHOLDS: Final = (50_000, 20, 100)
"""Allocations before a young collection, young collections before a middle one, middle collections before a full one."""


def collect_seldom() -> None:
    """Make the collector run far less often."""
    gc.set_threshold(*THRESHOLDS)


def spare_what_lives() -> None:
    """Take the objects that live now (modules, loaded tables) out of later collections; reference counts still free them."""
    gc.collect()
    gc.freeze()
