"""`python -m app.collector [--spare]`: the collector over the real S3, DynamoDB and Kinesis.

A spare gets everything ready, and starts to listen only when it gets the signal `TURN` (`app.collector.standby`).
"""

import asyncio
import errno
import os
import signal
import sys
from typing import Final

import structlog
import uvloop
from aiohttp import web

from app.adapters.kinesis import KinesisBlockStream
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.clock import SystemClock
from app.collector.batcher import CollectorPorts
from app.collector.descriptors import connection_limit
from app.collector.malloc import give_memory_back
from app.collector.server import COLLECTOR, EVENTS_PATH, create_app, new_runner
from app.collector.standby import SPARE_FLAG, await_turn
from app.crash.points import crash_points
from app.crash.proxies import answers_between, around
from app.errors import ConfigurationError
from app.gc_tuning import collect_seldom, spare_what_lives
from app.settings import Settings, read_settings
from app.telemetry import configure_logging, ops_routes

log = structlog.get_logger(__name__)

BIND_TRIES: Final = 50
BIND_PAUSE_S: Final = 0.02
"""A spare tries for a second: its predecessor is dead, but another process may test the port at this moment."""


async def serve(settings: Settings, spare_of: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT; then stop accepting, store the open batch, answer, and return.

    Args:
        settings: addresses, limits and services.
        spare_of: the pid of the process that sends a spare its turn; the spare does not listen before. None to serve at
        once.

    Raises:
        ConfigurationError: the settings do not fit, or a port is taken.
    """
    points = crash_points("collector", settings)
    store = around(points, "s3", S3ObjectStore(settings))
    registry = around(points, "registry", DynamoRegistry(settings))
    stream = around(points, "kinesis", KinesisBlockStream(settings))
    app = create_app(settings, CollectorPorts(store, registry, stream, SystemClock(), os.urandom))
    if points is not None:
        app.middlewares.insert(0, answers_between(points, EVENTS_PATH))
        points.is_awake = spare_of is None
    ops_app = web.Application()
    ops_app.add_routes(ops_routes(app[COLLECTOR].waits_for))
    ops, collector = (
        web.AppRunner(ops_app, access_log=None),
        new_runner(app, settings, connection_limit(settings.max_connections)),
    )
    try:
        await ops.setup()
        await collector.setup()
        if spare_of is not None and not await await_turn(spare_of):
            log.info("spare collector ends: its supervisor has ended")
            return
        if points is not None:
            points.is_awake = True
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        tries = 1 if spare_of is None else BIND_TRIES
        await _listen(collector, settings.collector_host, settings.collector_port, "INSTREAM_COLLECTOR_PORT", tries)
        await _listen(ops, settings.web_host, settings.web_port, "INSTREAM_WEB_PORT", tries)
        collect_seldom()
        spare_what_lives()
        log.info("collector ready", addresses=collector.addresses, ops=ops.addresses)
        await stop.wait()
        log.info("collector stops")
    finally:
        await collector.cleanup()
        await ops.cleanup()
    log.info("collector stopped")


async def _listen(runner: web.AppRunner, host: str, port: int, setting: str, tries: int) -> None:
    while True:
        tries -= 1
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except OSError as exc:
            if not tries or exc.errno != errno.EADDRINUSE:
                raise ConfigurationError(f"cannot listen on {host}:{port}: {exc}; set {setting} to a free port") from exc
            await asyncio.sleep(BIND_PAUSE_S)
        else:
            return


def main() -> int:
    """Run the collector, or its spare; the exit code: 0 after a graceful stop, 2 where the settings do not fit."""
    spare_of = os.getppid() if SPARE_FLAG in sys.argv[1:] else None
    try:
        settings = read_settings()
    except ConfigurationError as exc:
        sys.stderr.write(f"collector cannot start: {exc}\n")  # the settings decide how to log
        return 2
    configure_logging(settings, "collector")
    give_memory_back()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, spare_of))
    except ConfigurationError as exc:
        log.error("collector cannot start", error=str(exc))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
