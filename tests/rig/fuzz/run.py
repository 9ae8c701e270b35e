"""Keeps a child that plays cases, for some minutes: gathers its findings, and begins behind the case that ended it."""

import mmap
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Final

import msgspec
import psutil

from tests.rig.fuzz.child import NOWHERE, PLACE, Orders, Slice
from tests.rig.fuzz.mutate import case
from tests.rig.fuzz.one_case import BUDGET_S, Finding, describe
from tests.rig.fuzz.target import Target

HANGING: Final = 4
"""So many budgets of CPU time in one case: native code that never returns. The child itself ends what is Python."""
LOOK_EVERY_S: Final = 1.0
TELL_EVERY_S: Final = 10.0
_LAST_WORDS: Final = 2000

Say = Callable[[str], None]


class Score(msgspec.Struct):
    """What a target came to."""

    cases: int = 0
    uncaught: int = 0
    slowest_s: float = 0.0


class Result(msgspec.Struct):
    """A run."""

    scores: dict[str, Score]
    findings: dict[tuple[str, str], Finding] = {}
    """The first of each kind, by target and kind."""

    @property
    def cases(self) -> int:
        """All played cases."""
        return sum(score.cases for score in self.scores.values())

    @property
    def uncaught(self) -> int:
        """All cases with a finding."""
        return sum(score.uncaught for score in self.scores.values())


class Fuzzing:
    """One run.

    Args:
        targets: by name.
        catalogue: the module whose `TARGETS` they are.
        first: the first seed of each target.
        say: takes a line of progress.
        budget_s: CPU time of a case.
    """

    def __init__(
        self, targets: Mapping[str, Target], catalogue: str, first: int, say: Say, budget_s: float = BUDGET_S
    ) -> None:
        self._targets, self._catalogue, self._say, self._budget_s = targets, catalogue, say, budget_s
        self._seeds = dict.fromkeys(targets, first)
        self.result = Result({name: Score() for name in targets})

    def run(self, seconds: float, until: Callable[[Result], bool] = lambda _: False) -> Result:
        """Play for some time, or until the result is what the caller waits for."""
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s and not until(self.result):
            with _Child(self._orders) as child:
                self._attend(child, ends_s, until)
        return self.result

    def _orders(self, place_fd: int) -> Orders:
        return Orders(self._catalogue, self._seeds, place_fd, self._budget_s)

    def _attend(self, child: "_Child", ends_s: float, until: Callable[[Result], bool]) -> None:
        """Take slices until the time is over or the child ends."""
        told_s = time.monotonic()
        while (now_s := time.monotonic()) < ends_s and not until(self.result):
            if now_s - told_s >= TELL_EVERY_S:
                told_s = now_s
                left_min = (ends_s - now_s) / 60
                self._say(f"{left_min:5.1f} min left  {self.result.cases:,} cases, {self.result.uncaught} uncaught")
            line = child.line(LOOK_EVERY_S)
            if line:
                self._take(msgspec.json.decode(line, type=Slice))
            elif line == b"":
                self._lost(child.place, f"the process ended: {child.end}", child.last_words)
                return
            elif child.cpu_of_case_s > HANGING * self._budget_s:
                self._lost(child.place, f"more than {child.cpu_of_case_s:.0f} s of CPU in native code", "")
                return

    def _take(self, told: Slice) -> None:
        score = self.result.scores[told.target]
        score.cases += told.cases
        score.uncaught += told.uncaught
        score.slowest_s = max(score.slowest_s, told.slowest_s)
        self._seeds[told.target] = told.next_seed
        for finding in told.findings:
            self._note(finding)

    def _lost(self, place: tuple[int, int], what: str, last_words: str) -> None:
        """Note the case in which the child ended; the slice before it is not told."""
        if place == NOWHERE:
            raise RuntimeError(f"the child played nothing: {what}\n{last_words}")
        index, seed = place
        names = list(self._seeds)
        name = names[index]
        score = self.result.scores[name]
        score.cases += seed + 1 - self._seeds[name]
        score.uncaught += 1
        self._seeds[name] = seed + 1
        self._seeds = {each: self._seeds[each] for each in names[index + 1 :] + names[: index + 1]}  # the others are next
        self._note(Finding(name, seed, what, describe(case(self._targets[name], seed)), last_words))

    def _note(self, finding: Finding) -> None:
        if (finding.target, finding.what) not in self.result.findings:
            self.result.findings[finding.target, finding.what] = finding
            self._say(f"FOUND {finding.target}, seed {finding.seed}: {finding.what}")


class _Child:
    """The process, and the file in which it writes down the case that it plays."""

    def __init__(self, orders: Callable[[int], Orders]) -> None:
        self._place_file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._place_file.truncate(PLACE.size)
        fd = self._place_file.fileno()
        self._place = mmap.mmap(fd, PLACE.size)
        PLACE.pack_into(self._place, 0, *NOWHERE)
        command = [sys.executable, "-m", "tests.rig.fuzz.child", msgspec.json.encode(orders(fd)).decode()]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._errors, pass_fds=(fd,), env={**os.environ, "RUST_BACKTRACE": "0"}
        )
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._watched, self._cpu_at_s = self.place, 0.0

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._place.close()
        self._place_file.close()
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(b"")

    def line(self, timeout_s: float) -> bytes | None:
        """The next line, empty at the end; None if there is none yet."""
        try:
            return self._lines.get(timeout=timeout_s)
        except queue.Empty:
            return None

    @property
    def place(self) -> tuple[int, int]:
        """Index of the target and seed of the case that the process plays."""
        index, seed = PLACE.unpack_from(self._place)
        return int(index), int(seed)

    @property
    def cpu_of_case_s(self) -> float:
        """CPU time since this property was asked first while the process played its present case."""
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        cpu_s = float(times.user + times.system)
        if self.place != self._watched:
            self._watched, self._cpu_at_s = self.place, cpu_s
        return cpu_s - self._cpu_at_s

    @property
    def end(self) -> str:
        """How the process ended."""
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    @property
    def last_words(self) -> str:
        """The end of its stderr."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _LAST_WORDS))
        return self._errors.read().decode(errors="replace")
