"""One life of a stack in its HOME: the folders, the lock, and the record of its processes.

    lock        held by the supervisor while it lives
    life.json   the state of this life and its processes; replaced at every change
    stack.json  the addresses, while the stack is up
    logs/       a file a process; the finished life's are kept as logs.old/
    data/       Kafka, PostgreSQL, each worker's RocksDB

Only its user may read it: stack.json has the write keys, the logs have addresses of visitors.

The stand-in for S3, Kinesis and DynamoDB has no disk: when it ends, Kafka and the warehouse have only half of the data. So a
life begins with an empty `data/`: the next `up` removes the data of the last life.
"""

import fcntl
import os
import shutil
from enum import StrEnum
from pathlib import Path
from typing import IO, Final

import msgspec
import psutil

from app.errors import LocalStackError

LEAST_FREE_BYTES: Final = 2 * 1024**3
KILLED_S: Final = 120.0
"""Only a process that hangs in the kernel takes longer to end after a KILL."""
SAME_START_S: Final = 2.0
"""Start times are counted from a boot time that moves when the clock is set; a pid is not used again within this time."""


class State(StrEnum):
    """The phase of a life."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    ENDED = "ended"


class Started(msgspec.Struct, frozen=True):
    """A process that the supervisor started; pid and start time identify it, because pids are reused."""

    name: str
    pid: int
    create_time: float


class Life(msgspec.Struct, kw_only=True):
    """The content of life.json."""

    state: State
    supervisor: Started
    processes: list[Started] = []
    progress: list[str] = []
    """The progress so far, in lines."""
    failure: str | None = None
    """The reason of an end that no command asked for."""


class Home:
    """The folder of a stack's run state; `path` is absolute."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.logs = self.path / "logs"
        self.data = self.path / "data"
        self.stack_file = self.path / "stack.json"
        self.life_file = self.path / "life.json"
        self.lock_file = self.path / "lock"

    def prepare(self) -> None:
        """Make the folder, for its user alone; refuse a disk that is almost full.

        A folder that is not empty and not of a stack keeps its mode: it may be `/tmp`.

        Raises:
            LocalStackError: less than 2 GiB are free on HOME's disk, or the folder is somebody else's.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            if self.life_file.exists() or not any(self.path.iterdir()):
                self.path.chmod(0o700)
        except PermissionError as exc:
            raise LocalStackError(f"{self.path} is another user's: set INSTREAM_HOME to a folder of your own") from exc
        free = shutil.disk_usage(self.path).free
        if free < LEAST_FREE_BYTES:
            raise LocalStackError(
                f"only {free / 1024**3:.1f} GiB are free at {self.path}, {LEAST_FREE_BYTES // 1024**3} are needed: "
                "make room or set INSTREAM_HOME to another disk"
            )

    def acquire(self) -> IO[bytes] | None:
        """The open file that holds the lock; None while a supervisor has it."""
        self.path.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def is_held(self) -> bool:
        """Whether a supervisor lives here."""
        if not self.lock_file.exists():
            return False
        file = self.acquire()
        if file is None:
            return True
        file.close()
        return False

    def read_life(self) -> Life | None:
        """The last recorded life, or None if there was none."""
        try:
            return msgspec.json.decode(self.life_file.read_bytes(), type=Life)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as exc:
            raise LocalStackError(f"{self.life_file} cannot be read ({exc}): remove it if no stack runs") from exc

    def write_life(self, life: Life) -> None:
        """Record `life`."""
        replace_file(self.life_file, msgspec.json.format(msgspec.json.encode(life)))

    def wipe(self) -> bool:
        """Remove the files of a finished life; its logs are kept as logs.old. Call it only with the lock.

        Returns: whether there were files.

        Raises:
            LocalStackError: HOME has data that is not of a stack.
        """
        if self.life_file.exists():
            shutil.rmtree(self.path / "logs.old", ignore_errors=True)
            if self.logs.exists():
                self.logs.rename(self.path / "logs.old")
        elif self.data.exists() or self.logs.exists():
            raise LocalStackError(f"{self.path} has data or logs that no stack made: set INSTREAM_HOME to another folder")
        found = self.data.exists()
        if found:
            shutil.rmtree(self.data)
        self.stack_file.unlink(missing_ok=True)
        self.data.mkdir(parents=True)
        self.logs.mkdir()
        return found


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path`, readable for its user alone. A reader sees the old or the new content, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with private_file(beside) as file:
        file.write(content)
    beside.replace(path)


def private_file(path: Path) -> IO[bytes]:
    """A new empty file, which only its user may read, open for writing."""
    path.unlink(missing_ok=True)  # the mode of an old file would stay
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def started(name: str, pid: int) -> Started:
    """The record of the process `pid`; it must live, or be a zombie that was not waited for."""
    return Started(name, pid, psutil.Process(pid).create_time())


def find(record: Started) -> psutil.Process | None:
    """The recorded process if it still runs; a zombie, or another process under the same pid, is None."""
    try:
        process = psutil.Process(record.pid)
        if abs(process.create_time() - record.create_time) > SAME_START_S or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.NoSuchProcess:
        return None
    return process


def end_leftovers(life: Life, patience_s: float = 3) -> list[str]:
    """End the processes of a dead supervisor: TERM, then KILL; only processes that are provably the recorded ones.

    Patience is short: the processes have lost their supervisor, and the next `up` removes their data. After a KILL the call
    waits until the machine has ended the process.

    Returns: the names of those that still ran.

    Raises:
        LocalStackError: a process lives on after a KILL.
    """
    living = [(record, process) for record in life.processes if (process := find(record)) is not None]
    for _, process in living:
        _signal(process, kill=False)
    _, stubborn = psutil.wait_procs([process for _, process in living], timeout=patience_s)
    for process in stubborn:
        _signal(process, kill=True)
    _, immortal = psutil.wait_procs(stubborn, timeout=KILLED_S)
    if immortal:
        pids = ", ".join(str(process.pid) for process in immortal)
        raise LocalStackError(f"processes of an earlier stack do not end, killed as they are: {pids}; restart the machine")
    return [record.name for record, _ in living]


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return  # ended by itself meanwhile: done
