"""The collector as its own process over the AWS stand-in: what an operator starts and stops."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import aiohttp
import pytest

from app.adapters.kinesis import KinesisBlockStream
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.collector.standby import TURN
from app.core.formats.batch import cut_again
from app.local.services.aws import wait_ready
from app.local.stack.ports import own_port
from app.settings import Settings
from tests.builders.events import event, text
from tests.rig.restarts.clients import post
from tests.worlds.collector import NDJSON
from tests.worlds.waiting import HANGS_S, PAUSE_S, until

REGION = {"AWS_DEFAULT_REGION": "us-east-1"}
COMMAND = [sys.executable, "-m", "app.collector"]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    port = own_port()
    for name in [name for name in os.environ if name.startswith(("AWS_", "INSTREAM_"))]:
        monkeypatch.delenv(name)
    ours = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "stand-in",
        "AWS_SECRET_ACCESS_KEY": "stand-in",
        "AWS_DEFAULT_REGION": "us-east-1",
        "INSTREAM_WRITE_KEYS": "demo:browser",
        "INSTREAM_COLLECTOR_PORT": str(own_port()),
        "INSTREAM_WEB_PORT": str(own_port()),
        "INSTREAM_LINGER_MS": "60000",
    }
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    with subprocess.Popen([sys.executable, "-m", "app.local.services.aws", "--port", str(port)]) as process:
        try:
            wait_ready(ours["AWS_ENDPOINT_URL"], HANGS_S)
            yield dict(os.environ)
        finally:
            process.terminate()


async def test_sigterm_stores_what_is_open_answers_it_and_exits_with_zero(environment):
    settings = Settings()
    store, registry, stream = S3ObjectStore(settings), DynamoRegistry(settings), KinesisBlockStream(settings)
    for port in (store, registry, stream):
        await port.ensure()
    process = await asyncio.create_subprocess_exec(*COMMAND, env=environment, stderr=asyncio.subprocess.PIPE)
    url, ops = (f"http://127.0.0.1:{port}" for port in (settings.collector_port, settings.web_port))
    try:
        async with aiohttp.ClientSession() as session:

            async def answers(address: str, expected: str) -> bool:
                try:
                    async with session.get(address) as answer:
                        return expected in await answer.text()
                except aiohttp.ClientConnectionError:
                    return False

            await until(lambda: answers(f"{url}/ready", '"ready"'), PAUSE_S)
            assert await answers(f"{ops}/metrics", "instream_collector_buffered_bytes 0.0")
            body = b"\n".join(text(event(event_id=f"e{n}")) for n in range(3))
            waiting = asyncio.create_task(session.post(f"{url}/v1/events", data=body, headers=NDJSON))

            async def is_buffered() -> bool:
                return not await answers(f"{ops}/metrics", "instream_collector_buffered_bytes 0.0")

            await until(is_buffered, PAUSE_S)
            process.send_signal(signal.SIGTERM)
            answer = await (await waiting).json()
        _, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, log.decode()
    assert answer["accepted"] == 3
    item = await registry.get(answer["batch_id"])
    assert item is not None
    expected = cut_again(await store.get(item.raw_key), item, 0)
    found: list[bytes] = []
    for shard in await stream.shards():
        page = await stream.records(await stream.iterator(shard.shard_id, None), 100)
        found += [record.data for record in page.records]
    assert sorted(found) == sorted(expected)


TIMELESS = """
import asyncio, os
from app.collector import __main__ as collector
from app.settings import read_settings

class Loop(asyncio.SelectorEventLoop):
    stands_at_s = None

    def time(self):
        return super().time() if self.stands_at_s is None else self.stands_at_s

async def await_turn(parent):
    told = await collector_await_turn(parent)
    loop.stands_at_s = loop.time()
    return told

collector_await_turn, collector.await_turn = collector.await_turn, await_turn
loop = Loop()
loop.run_until_complete(collector.serve(read_settings(), os.getppid()))
"""
"""A spare collector for which no time passes from its turn on: whatever waits for a timer then waits for ever."""


async def test_a_spare_waits_for_no_timer_from_its_turn_to_its_first_answer(environment):
    settings = Settings()
    store, registry, stream = S3ObjectStore(settings), DynamoRegistry(settings), KinesisBlockStream(settings)
    for port in (store, registry, stream):
        await port.ensure()
    signal.pthread_sigmask(signal.SIG_BLOCK, {TURN})
    try:
        timeless = environment | {"INSTREAM_LINGER_MS": "0"}
        spare = await asyncio.create_subprocess_exec(sys.executable, "-c", TIMELESS, env=timeless)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {TURN})
    try:
        spare.send_signal(TURN)

        async def is_answered() -> bool:
            assert spare.returncode is None
            return await post(f"http://127.0.0.1:{settings.collector_port}", "e1") == 200

        await until(is_answered, PAUSE_S)
    finally:
        spare.kill()
        await spare.wait()


@pytest.mark.parametrize(
    ("change", "remedy"),
    [({"INSTREAM_WRITE_KEYS": ""}, "INSTREAM_WRITE_KEYS"), ({"INSTREAM_PARTITIONS": "0"}, "INSTREAM_PARTITIONS")],
)
def test_settings_that_do_not_fit_end_it_with_two_and_the_remedy(change, remedy):
    result = subprocess.run(COMMAND, env=os.environ | REGION | change, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert remedy in result.stderr
