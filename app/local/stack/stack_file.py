"""`stack.json`: the addresses of a running stack. The file is a contract; fields are added, never renamed."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from app.core.status.seen import ProcessDeath
from app.errors import LocalStackError
from app.local.stack.life import Home, replace_file
from app.local.stack.settings import read_local_settings
from app.settings import Settings
from app.variables import take_on
from app.warehouse_url import redacted_url


class StackProcess(msgspec.Struct, frozen=True):
    """A process of the stack; `pid` is the worker itself, never a wrapper."""

    role: str
    pid: int
    """0 while the process has ended and its successor is not started yet."""
    log: str
    """Absolute path of its log."""


class StackSettings(msgspec.Struct, frozen=True):
    """Settings that a traffic generator needs."""

    epoch: int
    partitions: int
    linger_ms: int
    slack_s: float
    join_window_s: float
    join_grace_s: float
    join_reorder_s: float
    dedup_window_s: float
    commit_interval_s: float
    delivery_interval_s: float
    audit_grace_s: float

    @classmethod
    def of(cls, settings: Settings) -> "StackSettings":
        """The subset of `settings`."""
        return cls(**{name: getattr(settings, name) for name in cls.__struct_fields__})


class Stack(msgspec.Struct, kw_only=True):
    """The content of stack.json."""

    home: str
    supervisor_pid: int
    collector_url: str
    """No slash at its end."""
    warehouse_url: str
    """libpq URL, through the Redshift stand-in."""
    kafka: str
    aws_endpoint: str
    bucket: str
    stream: str
    registry_table: str
    dashboard: str | None = None
    metrics: dict[str, str]
    """Role -> URL of its Prometheus page."""
    processes: list[StackProcess]
    """Only the roles; their services are under `infrastructure`."""
    infrastructure: list[StackProcess]
    restarts: dict[str, int]
    """Role or service -> number of restarts."""
    deaths: dict[str, list[ProcessDeath]] = {}
    """Role or service -> its last deaths, the oldest first; one that never died is absent."""
    postgres: str = ""
    """Host and port of the engine behind the warehouse's stand-in."""
    controls: dict[str, str] = {}
    """Stand-in (`aws`, `warehouse`) -> URL that takes failures on demand."""
    settings: StackSettings
    environment: dict[str, str]
    """The variables with which any command or program talks to this stack."""

    def write(self, home: Home) -> None:
        """Write the whole file, or change nothing."""
        replace_file(home.stack_file, msgspec.json.format(msgspec.json.encode(self)))

    def pid_of(self, role: str) -> int | None:
        """The pid of a role or service; None while it does not run."""
        known = {process.role: process.pid for process in [*self.processes, *self.infrastructure]}
        return known.get(role) or None

    def running_pid(self, role: str) -> int:
        """The pid of a role or service, for a signal.

        Raises:
            LocalStackError: it does not run. A signal to pid 0 would go to the sender's own process group.
        """
        pid = self.pid_of(role)
        if pid is None:
            raise LocalStackError(f"{role} does not run: `instream status` names its log")
        return pid


def without_secrets(stack: Stack) -> Stack:
    """The stack as it may be shown: without write keys, and no password in the warehouse's URL."""
    url = redacted_url(stack.warehouse_url)
    environment = stack.environment | {"INSTREAM_WAREHOUSE_URL": url}
    environment.pop("INSTREAM_WRITE_KEYS", None)
    return msgspec.structs.replace(stack, environment=environment, warehouse_url=url)


def read_stack(home: Home) -> Stack | None:
    """The stack that runs in `home`, or None where stack.json is absent."""
    try:
        return msgspec.json.decode(home.stack_file.read_bytes(), type=Stack)
    except FileNotFoundError:
        return None


def home_of_environment() -> Home:
    """HOME from the environment (`INSTREAM_HOME`, default `.instream`).

    Raises:
        ConfigurationError: a setting of the local stack does not fit, or a variable is no setting.
    """
    return Home(read_local_settings().home)


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Within the block the process has these variables too; afterwards its environment is as before."""
    before = dict(os.environ)
    take_on(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def enter(home: Home) -> bool:
    """Take on the environment of the stack that runs in `home`, so that settings that are read later lead to it.

    Returns: whether there is one. Without a stack the environment stays as it is; so commands work on AWS.
    """
    try:
        environment = json.loads(home.stack_file.read_bytes())["environment"]
    except FileNotFoundError:
        return False
    take_on(environment)
    return True
