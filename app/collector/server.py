"""The collector's HTTP server: `POST /v1/events`, the tracker at `/t.js`, and other tags' paths (`app.collector.tags`).

It answers 200 only once the events are durable. After 400 to 415 nothing of the request was kept. After 503 the events may
have been kept: the client sends them again, and dedup removes the second copies.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog
from aiohttp import web

from app.collector import metrics
from app.collector.answers import error_answer, found_in, picture
from app.collector.batcher import Batcher, CollectorPorts
from app.collector.budget import MemoryBudget
from app.collector.client_address import client_address, read_networks
from app.collector.client_connection import CollectorRunner
from app.collector.clock_guard import ClockGuard
from app.collector.connections import Connections, bounds_of
from app.collector.cors import PREFLIGHT, TAG_PREFLIGHT, cors_headers
from app.collector.parsing import Parsing
from app.collector.rate_limits import RateLimits
from app.collector.requests import RequestBody, check_encoding, is_validation, read_body, shown_key
from app.collector.scripts import SCRIPT_PATHS, example_routes, script_routes
from app.collector.sparse_log import SparseLog
from app.collector.storage_health import PROBE_ID, StorageHealth, probe
from app.collector.tags import GETS, POSTS, Tag, Translation, tag_key
from app.collector.visitor_cookie import VisitorCookie, is_anonymous
from app.collector.write_keys import WriteKeys
from app.core.events.fields import KeyKind
from app.core.events.foreign.mapped import Arrival
from app.core.events.request_body import JSON_TYPE, media_type
from app.errors import RequestRejected
from app.settings import Settings
from app.telemetry import ops_routes

log = structlog.get_logger(__name__)

EVENTS_PATH: Final = "/v1/events"
ID_BYTES: Final = 16
SEAL_THREADS: Final = 2
LINGERING_S: Final = 3.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(settings: Settings, ports: CollectorPorts) -> web.Application:
    """The application; serve it with `new_runner`, so that the application decompresses bodies itself.

    Raises:
        ConfigurationError: there is no write key, or their file does not fit.
    """
    return Collector(settings, ports).new_app()


def new_runner(app: web.Application, settings: Settings, connections: int | None = None) -> CollectorRunner:
    """Runs `app`: bodies reach it as sent (it bounds decompression itself), and shutdown waits for requests under way.

    Args:
        app: of `create_app`.
        settings: its settings.
        connections: most connections; None for MAX_CONNECTIONS.
    """
    bounds = bounds_of(settings, settings.max_connections if connections is None else connections)
    return CollectorRunner(
        app,
        Connections(bounds, app[COLLECTOR].faults),
        auto_decompress=False,
        access_log=None,
        keepalive_timeout=settings.keepalive_timeout_s,
        lingering_time=LINGERING_S,
        shutdown_timeout=settings.request_timeout_s,
    )


class Collector:
    """Takes requests, in front of a batcher."""

    def __init__(self, settings: Settings, ports: CollectorPorts) -> None:
        self._settings = settings
        self._clock = ports.clock
        self._trusted = read_networks(settings.trusted_proxies)
        self._budget = MemoryBudget(settings.max_buffered_bytes)
        self._health = StorageHealth(ports.clock.monotonic_s)
        self._guard = ClockGuard(ports.store, settings.max_clock_skew_s, self._health)
        self._keys = WriteKeys(settings)
        self._limits = RateLimits(settings)
        self._cookie = VisitorCookie(settings, ports.random_bytes)
        self._parsing = Parsing(settings, ports.clock)
        self._threads = ThreadPoolExecutor(SEAL_THREADS, thread_name_prefix="seal")
        self.faults = SparseLog(ports.clock.monotonic_s)
        self._ports = ports
        self._batcher: Batcher | None = None

    def new_app(self) -> web.Application:
        """The application with its routes; /metrics is not among them, as this port is the public's."""
        app = web.Application(middlewares=[self._answer_errors])
        app.add_routes([web.post(EVENTS_PATH, self.collect), web.options(EVENTS_PATH, _preflight)])
        app.add_routes([*script_routes(), *(example_routes() if self._settings.example_page else ())])
        app.add_routes([web.post(path, self.collect_tag) for path in POSTS])
        app.add_routes([web.get(path, self.collect_tag, allow_head=False) for path in GETS])
        app.add_routes([web.options(path, _tag_preflight) for path in (*POSTS, *GETS)])
        app.add_routes([route for route in ops_routes(self.waits_for) if route.path != "/metrics"])
        app.on_response_prepare.append(self._allow_origin)
        app.on_shutdown.append(self._drain)
        app.cleanup_ctx.append(self._run)
        app[COLLECTOR] = self
        return app

    @property
    def buffered_bytes(self) -> int:
        """Bytes of events in memory."""
        return self._budget.used_bytes

    @property
    def resend_bytes(self) -> int:
        """Bytes of blocks that Kinesis has not taken yet and that are put again."""
        return self._batcher.resender.waiting_bytes if self._batcher else 0

    def waits_for(self) -> str | None:
        """None if requests are taken; else the reason why not."""
        if self._batcher is None:
            return "starting"
        if self._ports.store.clock_skew_ms is None:
            return "the object store has not answered yet"
        return self._guard.fault() or self._health.fault()

    async def collect(self, request: web.Request) -> web.Response:
        """`POST /v1/events`: keep the request's lines, then answer with their number, their faults and their batch."""
        return await self._keep(request, None)

    async def collect_tag(self, request: web.Request) -> web.Response:
        """A path of another tag: the same, for the lines that its events become. A GET's answer is a picture."""
        tag = (GETS if request.method == "GET" else POSTS)[request.path]
        try:
            return await self._keep(request, tag)
        except RequestRejected as exc:
            raise tag.final(exc) from exc

    async def _keep(self, request: web.Request, tag: Tag | None) -> web.Response:
        settings, clock = self._settings, self._clock
        if self._batcher is None:
            raise RequestRejected(503, "starting", "the collector is starting", retry_after_s=1)
        arrived_ms, arrived_s = clock.now_ms(), clock.monotonic_s()
        ip = client_address(request.remote, request.headers.getall("X-Forwarded-For", ()), self._trusted)
        self._limits.check_address(ip, arrived_s)
        shown = shown_key(request) if tag is None else tag_key(request)
        kind: KeyKind | None = None
        if tag is None or shown:
            key, kind = self._keys.find(shown)
            self._limits.check_key(key, arrived_s)
        content_type = JSON_TYPE if tag else media_type(request.headers.get("Content-Type", ""))
        check_encoding(request)
        validates = is_validation(request)
        self._guard.check()
        visit = self._cookie.visit(request)
        translation = None
        if tag is not None:
            arrival = Arrival(arrived_ms, self._ports.random_bytes(ID_BYTES).hex(), visit.visitor_id)
            translation = Translation(tag, arrival, self._keys, kind)
        with self._budget.reserve() as held:
            body = await read_body(request, held, settings.max_body_bytes, settings.request_timeout_s)
            if tag is not None and tag.query_body is not None:
                body = tag.query_body(request)
                held.become(len(body))
            address = None if is_anonymous(request) else ip
            agent = request.headers.get("User-Agent")
            sent = RequestBody(body, content_type, kind or "browser", arrived_ms, address, agent, translation)
            del body
            lines = await self._parsing.read(sent, held)
            del sent
            if translation is not None and translation.body_key is not None:
                self._limits.check_key(translation.body_key, arrived_s)
            found = found_in(lines)
            if validates:
                return web.json_response(found)
            adding = self._batcher.add(lines, held.hand_over())
            del lines  # the batch alone keeps them, and counts them, until they are sealed
            batch_id = await adding
        metrics.LINES.labels("valid").inc(found["accepted"] - found["malformed"])
        metrics.LINES.labels("malformed").inc(found["malformed"])
        if translation is not None:
            translation.count()
        metrics.ACK_SECONDS.observe(clock.monotonic_s() - arrived_s)
        response = web.json_response(found | {"batch_id": batch_id}) if request.method == "POST" else picture()
        return self._cookie.answer(visit, response)

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every refusal, ours or aiohttp's, as `{"error": code, "detail": text}`; and every answer counted."""
        try:
            response = await handler(request)
        except RequestRejected as exc:
            response = self._error(request, exc.status, exc.code, exc.detail, exc.retry_after_s)
        except web.HTTPException as exc:
            code = exc.reason.lower().replace(" ", "_")
            response = self._error(request, exc.status, code, f"{exc.reason}: POST events to {EVENTS_PATH}")
            if "Allow" in exc.headers:
                response.headers["Allow"] = exc.headers["Allow"]
        except Exception:
            log.exception("request failed")
            response = self._error(request, 503, "internal", "the request could not be handled; send the same events again")
        known_method = request.method if request.method in {"POST", "OPTIONS", "GET"} else "other"
        metrics.REQUESTS.labels(known_method, response.status).inc()
        return response

    def _error(
        self, request: web.Request, status: int, code: str, detail: str, retry_after_s: int | None = None
    ) -> web.Response:
        metrics.REFUSALS.labels(code).inc()
        cors = cors_headers(self._settings.allowed_origins, request.headers.get("Origin"))
        return error_answer(status, code, detail, cors, retry_after_s)

    async def _run(self, _: web.Application) -> AsyncIterator[None]:
        """Start the background loops; at the end store the open batch, then stop the loops."""
        batcher = Batcher(self._settings, self._ports, self._budget, self._guard, self._threads)
        registry = self._ports.registry
        loops = [
            self._guard.watch(),
            batcher.resender.run(),
            probe(self._health, "registry", lambda: registry.get(PROBE_ID)),
        ]
        if self._settings.write_keys_file is not None:
            loops.append(self._keys.watch())
        background = [asyncio.create_task(loop) for loop in loops]
        for task in background:
            task.add_done_callback(_report_end)
        self._batcher = batcher
        yield
        await batcher.close()
        for task in background:
            task.cancel()
        await asyncio.wait(background)
        self._parsing.close()
        self._threads.shutdown(wait=False)

    async def _drain(self, _: web.Application) -> None:
        if self._batcher is not None:
            self._batcher.drain()

    async def _allow_origin(self, request: web.Request, response: web.StreamResponse) -> None:
        if request.path not in SCRIPT_PATHS:  # a page loads them without CORS, and shared caches keep one copy for all pages
            response.headers.update(cors_headers(self._settings.allowed_origins, request.headers.get("Origin")))


COLLECTOR: Final = web.AppKey("collector", Collector)


def _report_end(task: "asyncio.Task[None]") -> None:
    """A background loop never ends by itself: if it ends, log its error."""
    if not task.cancelled() and (exc := task.exception()) is not None:
        log.error("background task ended", exc_info=exc)


async def _preflight(_: web.Request) -> web.Response:
    return web.Response(status=204, headers=PREFLIGHT)


async def _tag_preflight(_: web.Request) -> web.Response:
    return web.Response(status=204, headers=TAG_PREFLIGHT)
