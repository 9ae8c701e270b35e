"""The cost of a run: CPU time, memory, wall time, of this process or of another one.

The main figure is CPU time, user and system, of the process at work: on a machine with other work the wall time varies too
much. Each stage runs several times; the best run and the median are shown.
"""

import gc
import os
import resource
import statistics
import time
from typing import Final

import msgspec
import psutil

from app.gc_tuning import collect_seldom

WORK_CORE: Final = 0
"""The core of the measured process; brokers, fakes and senders run on the others."""


class BenchRun(msgspec.Struct, kw_only=True):
    """One run of a stage."""

    events: int
    """The number of events in the measured time; each stage defines its event."""
    cpu_s: float
    wall_s: float
    peak_rss_bytes: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    phases: dict[str, float] = {}
    """Phase -> share of the CPU time."""
    more: dict[str, float] = {}
    """Values that only this stage has."""
    slices_s: list[float] = []
    """CPU time of equal pieces of the work, if the stage has them; the same pieces in every run."""

    @property
    def cpu_us(self) -> float:
        """CPU microseconds an event."""
        return self.cpu_s * 1e6 / max(1, self.events)

    @property
    def per_s(self) -> float:
        """Events a second of one core."""
        return self.events / max(1e-9, self.cpu_s)


class Result(msgspec.Struct, kw_only=True):
    """The result of a stage."""

    stage: str
    unit: str
    """The definition of this stage's event."""
    runs: list[BenchRun]
    figure: str = ""
    """The target."""

    @property
    def best(self) -> BenchRun:
        """The run with the least CPU an event."""
        return min(self.runs, key=lambda run: run.cpu_us)

    @property
    def floor_us(self) -> float | None:
        """CPU microseconds an event if each slice had run as undisturbed as in its best run; None without slices."""
        counts = {len(run.slices_s) for run in self.runs}
        if counts != {len(self.runs[0].slices_s)} or not self.runs[0].slices_s:
            return None
        slices = zip(*(run.slices_s for run in self.runs), strict=True)
        best_s: float = sum(min(same) for same in slices)
        return best_s * 1e6 / self.runs[0].events

    @property
    def median_us(self) -> float:
        """The median of the runs' CPU microseconds an event."""
        return statistics.median(run.cpu_us for run in self.runs)


class Meter:
    """CPU and wall time of this process from `start` to `stop`."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0
        self._cpu_s = self._wall_s = 0.0

    @staticmethod
    def now_s() -> float:
        """CPU time of this process so far."""
        return time.process_time()

    def start(self) -> None:
        """Begin, or go on."""
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def stop(self) -> None:
        """End, or pause."""
        self.cpu_s += time.process_time() - self._cpu_s
        self.wall_s += time.perf_counter() - self._wall_s


def pin(pid: int, core: int | None) -> None:
    """Let a process run only on the measured core, or (None) on all others; no effect on a machine with one core."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    every = list(range(psutil.cpu_count() or 1))
    if len(every) < 2 or not cores:
        return
    psutil.Process(pid).cpu_affinity([every[core]] if core is not None else every[WORK_CORE + 1 :])


def peak_rss_bytes() -> int:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def like_a_worker() -> None:
    """Set this process up like a worker: one core, and a garbage collector that runs seldom."""
    pin(os.getpid(), WORK_CORE)
    collect_seldom()
    gc.collect()
    gc.freeze()
