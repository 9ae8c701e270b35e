"""The options of a benchmark."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec


class BenchPlan(msgspec.Struct, kw_only=True, frozen=True):
    """The options of `instream bench`."""

    events: int
    block_lines: int = 500
    state_keys: int = 0
    """Ids that the ETL's state knows beforehand, spread over the dedup window."""
    repeats: int = 3
    rate: float = 500
    """Lines a second, where a stage works in real time."""
    real_time: bool = False
    """Whether stage `stack` runs at the default window and intervals."""
    profile: Path | None = None
    """The file for a flame graph (SVG) of the process at work."""

    @contextmanager
    def profiled(self, pid: int | None = None) -> Iterator[None]:
        """Sample a process (this one by default) with py-spy while the block runs, if a profile is wanted."""
        if self.profile is None:
            yield
            return
        options = ["--output", str(self.profile), "--format", "flamegraph", "--rate", "200", "--duration", "3600"]
        command = [str(Path(sys.executable).parent / "py-spy"), "record", "--pid", str(pid or os.getpid()), *options]
        sampler = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            sampler.send_signal(signal.SIGINT)
            sampler.wait()
