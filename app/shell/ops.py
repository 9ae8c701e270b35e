"""The loopback web server of a worker: /health, /ready and /metrics, it starts first and stops last."""

import aiohttp
import structlog
from aiohttp import web
from mode import Service

from app.errors import ConfigurationError
from app.settings import Settings
from app.telemetry import Readiness, ops_routes

log = structlog.get_logger(__name__)


class OpsServer(Service):
    """Serves `ops_routes` on `settings.web_host`:`settings.web_port`; port 0 takes a free one and logs it.

    It replaces Faust's own web server, whose command line would bind every interface and whose pages show tables.
    """

    driver_version = f"aiohttp={aiohttp.__version__}"

    def __init__(self, settings: Settings, readiness: Readiness) -> None:
        super().__init__()
        self._settings = settings
        self._runner = web.AppRunner(self._application(readiness), access_log=None)
        self.port = settings.web_port

    @staticmethod
    def _application(readiness: Readiness) -> web.Application:
        application = web.Application()
        application.add_routes(ops_routes(readiness))
        return application

    @property
    def web_url(self) -> str:
        """The address of the server."""
        return f"http://{self._settings.web_host}:{self.port}"

    async def on_start(self) -> None:
        """Bind and serve.

        Raises:
            ConfigurationError: the port is taken.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.web_host, self._settings.web_port)
        try:
            await site.start()
        except OSError as exc:
            await self._runner.cleanup()
            raise ConfigurationError(f"cannot listen on {self.web_url}: {exc.strerror}; set INSTREAM_WEB_PORT") from exc
        self.port = self._runner.addresses[0][1]
        log.info("operations pages listen", url=self.web_url)

    async def on_stop(self) -> None:
        """Close the listening socket."""
        await self._runner.cleanup()
