"""Guards on real processes: what does not belong together refuses to work, and says why."""

import asyncio
import json
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from app.adapters.kafka import ensure_topics
from app.core.formats.step_message import StepMessage, encode_step
from app.errors import ConfigurationError, WrongPartitionCount
from app.local.services.aws import StandinHandler
from app.local.stack.ports import own_port
from app.topics import topics_of
from tests.builders.events import event, text
from tests.worlds.etl_workers import Worker, World, aws, broker
from tests.worlds.waiting import HANGS_S, eventually

pytestmark = pytest.mark.stack

AHEAD_S = 60
EPOCH = 3


class GuardWorld(World):
    """An ETL worker of an earlier epoch than the cluster's, and one of its own."""

    def _worker(self, number: int) -> Worker:
        epoch = {1: 1, 2: EPOCH}[number]
        return Worker(self.settings.home / f"epoch-{epoch}", self._environment | {"INSTREAM_EPOCH": str(epoch)})


async def refuse(world: GuardWorld) -> None:
    outdated, owner = world.workers
    of_epoch = world.settings.model_copy(update={"epoch": EPOCH})
    topics = topics_of(of_epoch)
    await ensure_topics(of_epoch)
    with pytest.raises(ConfigurationError, match=f"the cluster is in epoch {EPOCH}, this process in 1"):
        await ensure_topics(world.settings)
    with pytest.raises(WrongPartitionCount, match="has 4 partitions, the settings say 5: raise INSTREAM_EPOCH"):
        await ensure_topics(of_epoch.model_copy(update={"partitions": 5}))

    for number, predecessor in ((1, -1), (2, 0), (5, 1)):  # the log lost 3 and 4: nobody can know what they were
        step = StepMessage(EPOCH, 0, number, predecessor, 0, -1, 0, b"", {}, {}, [], [], [])
        await world.send(topics.rows.name, 0, encode_step(step))
    outdated.start()
    owner.start()
    await world.until(lambda: None not in (outdated.poll(), owner.poll()), "both end")
    assert owner.poll() == 1
    assert "StepGap" in owner.log()
    assert "history has a gap, store is wiped" in owner.log()

    assert outdated.poll() == 2
    assert f"the cluster is in epoch {EPOCH}, this process in 1: set INSTREAM_EPOCH={EPOCH}" in outdated.log()


def test_an_outdated_process_refuses_and_a_lost_step_ends_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(port: int, url: str) -> None:
        async with GuardWorld(tmp_path, port, url) as world:
            await refuse(world)

    with broker(tmp_path / f"kafka-{uuid.uuid4().hex[:8]}") as port, aws() as url:
        for name, value in GuardWorld(tmp_path, port, url).aws_environment.items():
            monkeypatch.setenv(name, value)
        asyncio.run(run(port, url))


def test_a_collector_whose_clock_is_ahead_of_s3s_takes_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_of(url: str, body: bytes | None = None) -> tuple[int, dict[str, str]]:
        headers = {"X-Write-Key": "demo", "Content-Type": "text/plain"}
        try:
            with urlopen(Request(url, data=body, headers=headers), timeout=HANGS_S) as answer:
                return answer.status, json.load(answer)
        except HTTPError as exc:
            return exc.code, json.load(exc)
        except URLError:
            return 0, {}

    true_date = StandinHandler.date_time_string
    monkeypatch.setattr(StandinHandler, "date_time_string", lambda self, _=None: true_date(self, time.time() - AHEAD_S))
    port = own_port()
    with aws() as url:
        stack = GuardWorld(tmp_path, 1, url)
        environment = stack._environment | {
            "INSTREAM_WRITE_KEYS": "demo:browser", "INSTREAM_COLLECTOR_PORT": str(port), "INSTREAM_WEB_PORT": "0",
            "INSTREAM_BUCKET": "guards",
        }  # fmt: skip
        with subprocess.Popen([sys.executable, "-m", "app.collector"], env=environment) as process:
            try:
                began_s = time.monotonic()
                eventually(lambda: "off the object store's" in str(answer_of(f"http://127.0.0.1:{port}/ready")))
                status, answer = answer_of(f"http://127.0.0.1:{port}/v1/events", text(event(event_id="e")))
                assert (status, answer["error"]) == (503, "clock_skew")
                [skew_s] = map(float, re.findall(r"is \+([\d.]+) s off", answer["detail"]))
                # proven is what the Date, of whole seconds and as old as its answer took, leaves no doubt of
                assert AHEAD_S - 1 - (time.monotonic() - began_s) < skew_s <= AHEAD_S
                assert answer_of(f"http://127.0.0.1:{port}/ready")[0] == 503
            finally:
                process.terminate()
