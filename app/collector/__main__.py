"""`python -m app.collector`: the collector over the real S3, DynamoDB and Kinesis."""

import asyncio
import os
import signal
import sys

import structlog
import uvloop
from aiohttp import web

from app.adapters.kinesis import KinesisBlockStream
from app.adapters.registry import DynamoRegistry
from app.adapters.s3 import S3ObjectStore
from app.clock import SystemClock
from app.collector.server import COLLECTOR, create_app, new_runner
from app.errors import ConfigurationError
from app.settings import Settings, read_settings
from app.telemetry import configure_logging, ops_routes

log = structlog.get_logger(__name__)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then stop accepting, store what is open, answer, and return.

    Raises:
        ConfigurationError: the settings do not fit, or a port is taken.
    """
    store, registry, stream = S3ObjectStore(settings), DynamoRegistry(settings), KinesisBlockStream(settings)
    app = create_app(settings, store, registry, stream, SystemClock(), os.urandom)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    ops_app = web.Application()
    ops_app.add_routes(ops_routes(app[COLLECTOR].waits_for))
    ops, collector = web.AppRunner(ops_app, access_log=None), new_runner(app, settings)
    try:
        await ops.setup()
        await _listen(ops, settings.web_host, settings.web_port, "INSTREAM_WEB_PORT")
        await collector.setup()
        await _listen(collector, settings.collector_host, settings.collector_port, "INSTREAM_COLLECTOR_PORT")
        log.info("collector ready", addresses=collector.addresses, ops=ops.addresses)
        await stop.wait()
        log.info("collector stops")
    finally:
        await collector.cleanup()
        await ops.cleanup()
    log.info("collector stopped")


async def _listen(runner: web.AppRunner, host: str, port: int, setting: str) -> None:
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
    except OSError as exc:
        raise ConfigurationError(f"cannot listen on {host}:{port}: {exc}; set {setting} to a free port") from exc


def main() -> int:
    """Run the collector; the exit code: 0 after a graceful stop, 2 where the settings do not fit."""
    try:
        settings = read_settings()
    except ConfigurationError as exc:
        sys.stderr.write(f"collector cannot start: {exc}\n")  # the settings say how to log
        return 2
    configure_logging(settings, "collector")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except ConfigurationError as exc:
        log.error("collector cannot start", error=str(exc))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
