"""Prometheus over a local stack: the process with the alerts of compose/, and questions to it."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

import msgspec

from app.errors import LocalStackError
from app.local.services.java import PROJECT_ROOT
from app.local.stack.ports import HOST, claim_free

RULES: Final = PROJECT_ROOT / "compose" / "rules"
ANSWER_S: Final = 10.0
START_S: Final = 60.0
"""A Prometheus that is not ready after so long does not start."""
END_S: Final = 20.0
POLL_S: Final = 0.05


class Firing(msgspec.Struct, frozen=True):
    """An alert whose expression holds."""

    labels: dict[str, str]
    annotations: dict[str, str]
    state: str
    """pending until it has held for the alert's `for`, then firing."""

    @property
    def name(self) -> str:
        """The alert's name."""
        return self.labels["alertname"]


class _Alerts(msgspec.Struct):
    alerts: list[Firing]


class _Answer(msgspec.Struct):
    data: _Alerts


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str, config: Path, pid: int) -> None:
        self.url = url
        self._config = config
        self._pid = pid

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series that an expression gives now.

        Raises:
            LocalStackError: Prometheus does not answer, or refuses the expression.
        """
        found: list[dict[str, Any]] = json.loads(self._get(f"/api/v1/query?query={quote(expr)}"))["data"]["result"]
        return found

    def alerts(self) -> list[Firing]:
        """The alerts that are pending or fire.

        Raises:
            LocalStackError: Prometheus does not answer.
        """
        return msgspec.json.decode(self._get("/api/v1/alerts"), type=_Answer).data.alerts

    def scrape(self, pages: Mapping[str, str], every_s: float, rules: Path = RULES) -> None:
        """Ask other pages from now on, or play other rules.

        Args:
            pages: role -> URL of its metrics.
            every_s: seconds between two looks at each page, and between two looks at the rules.
            rules: a folder of rule files.
        """
        self._config.write_text(config_of(pages, every_s, rules))
        os.kill(self._pid, signal.SIGHUP)

    def _get(self, path: str) -> bytes:
        try:
            with urlopen(self.url + path, timeout=ANSWER_S) as answer:
                body: bytes = answer.read()
                return body
        except URLError as exc:
            reason = exc.read().decode(errors="replace") if hasattr(exc, "read") else str(exc)
            raise LocalStackError(f"Prometheus at {self.url}{path}: {reason}") from exc


def config_of(pages: Mapping[str, str], every_s: float, rules: Path = RULES) -> str:
    """The configuration that asks each role's page: job and label `role` as in compose/prometheus.yml."""
    jobs = [
        {"targets": [urlsplit(url).netloc], "labels": {"role": role, "__metrics_path__": urlsplit(url).path}}
        for role, url in pages.items()
    ]
    every = f"{round(every_s * 1000)}ms"
    return json.dumps({
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(file) for file in sorted(rules.glob("*.yml"))],
        "scrape_configs": [{"job_name": "instream", "static_configs": jobs}],
    })  # fmt: skip


def find_program() -> Path:
    """Prometheus' program: that of `make setup`, else the machine's.

    Raises:
        LocalStackError: there is none.
    """
    own = PROJECT_ROOT / ".promtool" / "prometheus"
    found = str(own) if own.exists() else shutil.which("prometheus")
    if found is None:
        raise LocalStackError("prometheus is missing: run `make setup`; where there is no apt-get, install Prometheus")
    return Path(found)


@contextmanager
def prometheus(folder: Path, pages: Mapping[str, str], every_s: float, rules: Path = RULES) -> Iterator[Prometheus]:
    """A Prometheus of its own on a free port, until the block ends.

    Args:
        folder: an empty folder for its data.
        pages: role -> URL of its metrics.
        every_s: seconds between two looks at each page, and between two looks at the rules.
        rules: a folder of rule files.

    Raises:
        LocalStackError: it is missing, or does not start.
    """
    config, program, claim = folder / "prometheus.yml", find_program(), claim_free()
    config.write_text(config_of(pages, every_s, rules))
    words: Sequence[object] = (
        program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn",
        f"--web.listen-address={HOST}:{claim.port}",
    )  # fmt: skip
    log = folder / "prometheus.log"
    with claim.holder, log.open("wb") as output:
        process = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            running = Prometheus(f"http://{HOST}:{claim.port}", config, process.pid)
            _await_ready(running, process, log)
            yield running
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_ready(running: Prometheus, process: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up_s = time.monotonic() + START_S
    while True:
        try:
            urlopen(f"{running.url}/-/ready", timeout=ANSWER_S).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > give_up_s:
                said = log.read_text(errors="replace").splitlines()[-3:]
                raise LocalStackError(f"Prometheus does not start: {' | '.join(said)}") from None
        time.sleep(POLL_S)
