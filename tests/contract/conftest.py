"""One AWS stand-in for all contract tests, in a process of its own; each test has its own bucket, table and stream."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from app.local.services.aws import wait_ready
from app.local.stack.ports import own_port
from app.settings import Settings
from tests.worlds.waiting import HANGS_S


class FixedClock:
    """A clock that a test sets."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic_s(self) -> float:
        return self.at_ms / 1000


class AwsStandIn(NamedTuple):
    url: str
    pid: int


@pytest.fixture(scope="session")
def aws_stand_in() -> Iterator[AwsStandIn]:
    port = own_port()
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-m", "app.local.services.aws", "--port", str(port)]) as process:
        try:
            wait_ready(url, HANGS_S)
            yield AwsStandIn(url, process.pid)
        finally:
            process.terminate()
    assert process.returncode == 0


@pytest.fixture
def aws_settings(aws_stand_in: AwsStandIn, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith(("AWS_", "INSTREAM_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws_stand_in.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "stand-in")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "stand-in")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"t-{uuid.uuid4().hex[:12]}"
    return Settings(bucket=name, stream=name, registry_table=name, stream_shards=2)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()
