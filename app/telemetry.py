"""Structured logs and the /health, /ready and /metrics pages that every process has."""

import logging
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, Info, generate_latest

from app.console_log import console_renderer
from app.settings import Settings

Readiness = Callable[[], str | None]
"""None if the process is ready; else, in a few words, the reason why it waits."""

CODE: Final = Info("instream_code", "The code that this process runs: the package's version, and the folder it came from")
READY: Final = Gauge("instream_ready", "1 while /ready says ready, 0 while the process waits; /ready names the reason")

_SHARED: Final[list[structlog.typing.Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


def configure_logging(settings: Settings, role: str, level: int = logging.INFO) -> None:
    """Send every log of this process, ours and the libraries', through one formatter to stderr.

    Console lines on a terminal, JSON lines otherwise (`settings.log_format`). Safe to call again.
    """
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer() if as_json else console_renderer()
    tail = [structlog.processors.format_exc_info] if as_json else []
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail, renderer],
    )
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("botocore", "boto3", "urllib3", "aiokafka", "s3transfer"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)


def ops_routes(readiness: Readiness) -> list[web.RouteDef]:
    """The routes /health (alive), /ready (503 with the reason while not) and /metrics (Prometheus text)."""
    CODE.info({"version": version("instream"), "folder": str(Path(__file__).parents[1])})

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        waiting_for = readiness()
        if waiting_for is None:
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "waiting", "reason": waiting_for}, status=503)

    async def metrics(_: web.Request) -> web.Response:
        READY.set(readiness() is None)
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [web.get("/health", health), web.get("/ready", ready), web.get("/metrics", metrics)]
