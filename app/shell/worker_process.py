"""The process of a Faust worker: our logging, the operations pages, and a start that refuses in one clear line."""

import logging
from typing import Any, NoReturn, cast

import structlog
from faust.worker import Worker

from app.adapters.kafka import ensure_topics
from app.crash.proxies import between
from app.errors import InstreamError
from app.gc_tuning import collect_seldom, spare_what_lives
from app.shell.faust_app import InstreamApp
from app.telemetry import configure_logging

log = structlog.get_logger(__name__)

REFUSED_EXIT_CODE = 2
"""Exit code of a worker that refuses to start; a crash exits with 1, SIGTERM with 0."""


def _no_service_chatter(record: logging.LogRecord) -> bool:
    """Drop the "[^-Consumer]: Starting..." that Faust's services say under the names of our modules."""
    return record.levelno != logging.INFO or not str(record.msg).startswith("[^")


class InstreamWorker(Worker):
    """Faust's worker, with these differences.

    Logs go through `app.telemetry` and stdout stays stdout. The operations pages start first and stop last. Topics are
    made or checked before Faust joins the group. The command line's web flags have no effect: INSTREAM_WEB_HOST and
    INSTREAM_WEB_PORT decide. The garbage collector runs seldom (`app.gc_tuning`).
    """

    def __init__(self, app: Any, *services: Any, **options: Any) -> None:
        super().__init__(app, *services, **{**options, "redirect_stdouts": False})
        self.spinner = None

    def _setup_logging(self) -> None:
        level = logging.getLevelName(str(self.loglevel or "INFO").upper())
        configure_logging(self._instream.settings, self._instream.role, level)
        for chatty in ("faust", "mode"):  # at INFO they draw tables of every offset
            logging.getLogger(chatty).setLevel(logging.DEBUG if level <= logging.DEBUG else max(level, logging.WARNING))

        for handler in logging.getLogger().handlers:
            handler.addFilter(_no_service_chatter)

    async def on_first_start(self) -> None:
        """Logging, signal handlers, operations pages, topics; only then Faust."""
        await super().on_first_start()
        try:
            await self.add_runtime_dependency(self._instream.ops)
            for hook in self._instream.starting_hooks:
                hook()
            await between(self._instream.ports.points, "kafka.topics", ensure_topics(self._instream.settings))
        except InstreamError as exc:
            self._refuse(exc)
        collect_seldom()
        spare_what_lives()
        log.info("worker starts", app=self._instream.group, datadir=str(self._instream.conf.datadir))

    @property
    def _instream(self) -> InstreamApp:
        return cast(InstreamApp, self.app)

    @staticmethod
    def _refuse(reason: InstreamError) -> NoReturn:
        log.critical("cannot start", reason=str(reason), error=type(reason).__name__)
        raise SystemExit(REFUSED_EXIT_CODE)

    def _on_startup_end_spinner(self) -> None:
        log.info("worker ready")

    def _setproctitle(self, info: str, *, ident: str = "instream") -> None:
        """Leave the process's title alone: supervisors and operators look for the command line."""
