"""The collector over services in memory, 20 ms a call: `python -m app.bench.stages.collector_server PORT`."""

import asyncio
import os
import signal
import sys

import uvloop
from aiohttp import web

from app.clock import SystemClock
from app.collector.batcher import CollectorPorts
from app.collector.server import create_app, new_runner
from app.gc_tuning import collect_seldom
from app.settings import Settings
from app.testing.memory import MemoryBlockStream, MemoryObjectStore, MemoryRegistry

LATENCY_S = 0.02
LINGER_MS = 250


async def _latency(call: str, subject: str) -> None:
    del call, subject
    await asyncio.sleep(LATENCY_S)


async def serve(port: int) -> None:
    """Serve until SIGTERM."""
    settings = Settings(write_keys={"bench": "browser"}, partitions=4, linger_ms=LINGER_MS, max_buffered_bytes=1 << 30)
    store, registry, stream = MemoryObjectStore(), MemoryRegistry(), MemoryBlockStream()
    for twin in (store, registry, stream):
        twin.before = _latency
    runner = new_runner(create_app(settings, CollectorPorts(store, registry, stream, SystemClock(), os.urandom)), settings)
    await runner.setup()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await stop.wait()
    lines = sum([item.line_count async for item in registry.all_batches()])
    sys.stdout.write(f"{lines}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    collect_seldom()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as main:
        main.run(serve(int(sys.argv[1])))
