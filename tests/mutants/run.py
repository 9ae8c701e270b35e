"""Plants every bug of the catalogue, one at a time, in a copy of the tree, and runs the tests against it.

    make mutants                          all of them
    python -m tests.mutants.run --only ready --level tests

The simulation runs where the tests that are about the place notice nothing (--all: it always does). Prints who caught what.
Exit codes: 0 every mutant is caught and at least five by the simulation alone; 1 one survives, or too few need the
simulation; 2 the levels could not be run, or fail without any bug.
"""

import argparse
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from tests.mutants.catalogue import MUTANTS
from tests.mutants.levels import Level, Outcome, Simulation, Tests
from tests.mutants.mutant import TREE, Mutant

COPIED: Final = ("app", "agents", "tables", "tests", ".github", "pyproject.toml", "README.md", "Makefile")
LINKED: Final = (".venv", ".kafka", "compose")
KERNELS: Final = TREE / "app" / "kernels" / "__pycache__"
"""The compiled kernels, also for copies: a bug in a kernel compiles those that have it."""
LONGEST_S: Final = 900
"""A level that takes longer hangs, which catches the mutant too; without any bug all of them together get ten times that."""
ALONE_LEAST: Final = 5


class Result(NamedTuple):
    """What came of one mutant."""

    mutant: Mutant
    outcomes: dict[str, Outcome]
    seconds: float

    @property
    def caught_by(self) -> list[str]:
        """The levels that noticed."""
        return [level for level, outcome in self.outcomes.items() if outcome.caught]

    @property
    def error(self) -> str:
        """Why some level says nothing."""
        return next((outcome.error for outcome in self.outcomes.values() if outcome.error), "")


class Copy:
    """A copy of the tree that holds one bug at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._moment_s = time.time()
        self._process: subprocess.Popen[str] | None = None
        for name in COPIED:
            source = TREE / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / name)
        for name in LINKED:
            if (TREE / name).exists():
                (folder / name).symlink_to(TREE / name)

    def judge(self, mutant: Mutant, levels: Sequence[Level], *, every: bool) -> Result:
        """Plant it, run the levels up to the first that notices (or every one), and take it away again."""
        started_s = time.monotonic()
        file = self._folder / mutant.file
        sound = file.read_text()
        try:
            self._write(file, mutant.applied(self._folder))
            outcomes: dict[str, Outcome] = {}
            for level in levels:
                if level.command([mutant]) and (every or not any(outcome.caught for outcome in outcomes.values())):
                    outcomes[level.name] = self.run(level, [mutant], LONGEST_S)
        finally:
            self._write(file, sound)
        return Result(mutant, outcomes, time.monotonic() - started_s)

    def run(self, level: Level, mutants: Sequence[Mutant], longest_s: float) -> Outcome:
        """Run one level here."""
        environment = os.environ | {"PYTHONPATH": str(self._folder), "NUMBA_CACHE_DIR": str(KERNELS)}
        with subprocess.Popen(
            level.command(mutants), cwd=self._folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            self._process = process
            try:
                output, _ = process.communicate(timeout=longest_s)
            except subprocess.TimeoutExpired:
                return Outcome(caught=True, by=f"no end within {longest_s:.0f} s")
            finally:
                self.end()
        return level.judge(process.returncode, output)

    def end(self) -> None:
        """End what runs here, with whatever it started: it has a process group of its own."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _write(self, file: Path, text: str) -> None:
        """Each content gets a time of its own: Python takes a file with the time and size that it knows for the same one."""
        file.write_text(text)
        self._moment_s += 2
        os.utime(file, (self._moment_s, self._moment_s))


def judge_all(mutants: Sequence[Mutant], levels: Sequence[Level], copies: Sequence[Copy], *, every: bool) -> list[Result]:
    """Judge the mutants side by side, one a copy, and tell each result as it comes."""
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in mutants:
        waiting.put(mutant)
    results: list[Result] = []

    def work(copy: Copy) -> None:
        while not waiting.empty():
            try:
                result = copy.judge(waiting.get_nowait(), levels, every=every)
            except queue.Empty:
                return
            results.append(result)
            tell(result)

    threads = [threading.Thread(target=work, args=[copy], daemon=True) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    order = {mutant.name: n for n, mutant in enumerate(mutants)}
    return sorted(results, key=lambda result: order[result.mutant.name])


def tell(result: Result) -> None:
    """One line of the table."""
    mutant = result.mutant
    cells = []
    for level, outcome in result.outcomes.items():
        found = outcome.by.removeprefix("tests/")[:90] if outcome.caught else "-"
        cells.append(f"{level}: {'?' if outcome.error else found}")
    verdict = "ERROR" if result.error else "caught" if result.caught_by else "SURVIVES"
    print(f"{verdict:<8} {mutant.rule:<3} {mutant.name:<66} {result.seconds:4.0f} s  {' | '.join(cells)}", flush=True)


def summed_up(results: Sequence[Result], levels: Sequence[Level]) -> int:
    """Print the table and its sums; the exit code."""
    print()
    for result in results:
        tell(result)
    survivors = [result.mutant.name for result in results if not result.caught_by and not result.error]
    alone = [result.mutant.name for result in results if result.caught_by == [Simulation.name]]
    print(f"\n{len(results)} mutants, {len(results) - len(survivors)} caught")
    for level in levels:
        print(f"  by {level.name}: {sum(level.name in result.caught_by for result in results)}")
    print(f"  by {Simulation.name} alone: {len(alone)}")
    for result in results:
        if result.error:
            print(f"ERROR {result.mutant.name}: {result.error}")
    for name in survivors:
        print(f"SURVIVES {name}")
    if any(result.error for result in results):
        return 2
    few = len(results) == len(MUTANTS) and len(levels) > 1 and len(alone) < ALONE_LEAST
    return 1 if survivors or few else 0


def main() -> int:
    """Read the options and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], help="mutants whose name has this text")
    parser.add_argument("--start", default="", help="mutants of the catalogue from this name on")
    parser.add_argument("--level", choices=["tests", "simulation"], help="this level alone")
    parser.add_argument(
        "--all", action="store_true", help="run every level against each, not only up to the first that notices"
    )
    parser.add_argument("--jobs", type=int, default=2, help="mutants judged side by side")
    parser.add_argument("--seeds", type=int, default=60, help="histories that the simulation plays against each")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first seed")
    options = parser.parse_args()
    names = [mutant.name for mutant in MUTANTS]
    start = names.index(options.start) if options.start else 0
    mutants = [m for m in MUTANTS[start:] if not options.only or any(text in m.name for text in options.only)]
    every: list[Level] = [Tests(), Simulation(options.seeds, options.first)]
    levels = [level for level in every if options.level in (None, level.name)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        copies = [Copy(_made(Path(folder) / str(n))) for n in range(max(1, min(options.jobs, len(mutants))))]
        try:
            for level in levels:
                sound = copies[0].run(level, mutants, 10 * LONGEST_S)
                if sound.caught or sound.error:
                    print(f"without any bug {level.name} fails: {sound.by} {sound.error}")
                    return 2
                print(f"without any bug {level.name} passes", flush=True)
            return summed_up(judge_all(mutants, levels, copies, every=options.all), levels)
        finally:
            for copy in copies:
                copy.end()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
