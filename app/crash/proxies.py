"""Thin wrappers around the adapters of a process; each passes the point before a call and the point after it.

One proxy serves every port. The table `PORTS` says which methods are calls and what each one touches. A method that is not
in the table cannot be called through the proxy.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar, cast

from aiohttp import web

from app.core.formats.flows import Flow
from app.crash.catalogue import AFTER, BEFORE
from app.crash.points import CrashPoints

T = TypeVar("T")
Touches = Callable[..., str]
"""The name of the thing that a call with these arguments touches; "" if all its calls touch the same thing."""


def _nothing(*_: object, **__: object) -> str:
    return ""


def _area(key: str, *_: object, **__: object) -> str:
    """The part of the bucket in which `key` lies: its first folder, or `ready` for a `ready.json`."""
    return "ready" if key.endswith("/ready.json") else key.partition("/")[0]


def _area_of_target(source: str, target: str) -> str:
    return _area(target)


def _area_of_first(keys: Sequence[str]) -> str:
    return _area(keys[0]) if keys else ""


def _output(flow: Flow, *_: object) -> str:
    return flow.name


class Port(NamedTuple):
    """One port: its calls, and its other names, which call no service."""

    calls: Mapping[str, Touches]
    quiet: frozenset[str] = frozenset()


PORTS: Final[Mapping[str, Port]] = {
    "s3": Port(
        {
            "put": _area, "put_if_absent": _area, "get": _area, "get_range": _area, "head": _area, "copy": _area_of_target,
            "delete": _area_of_first, "list": _area,
        },
        frozenset({"bucket", "clock_skew_ms", "close"}),
    ),
    "registry": Port(
        dict.fromkeys(
            ("register", "restore", "amend", "get", "open_batches", "all_batches", "complete", "record_attempt"), _nothing
        ),
        frozenset({"close"}),
    ),
    "kinesis": Port(dict.fromkeys(("put", "shards", "iterator", "records"), _nothing), frozenset({"close"})),
    "logs": Port(
        dict.fromkeys(("first_offsets", "end_offsets", "committed", "bounds", "message_at"), _nothing),
        frozenset({"start", "stop"}),
    ),
    "rocksdb": Port(
        dict.fromkeys(("write", "ingest", "flush", "create", "drop", "wipe"), _nothing),
        frozenset({"families", "get", "scan", "keys", "count", "batch", "close"}),
    ),
    "store": Port(
        {"follow": _nothing},
        frozenset({
            "empty", "verify_read_to", "maybe", "get", "scan", "generations", "position", "rows_offset", "commit", "write",
            "wipe", "close",
        }),
    ),
    "warehouse": Port(
        {"copy": _output}
        | dict.fromkeys(
            (
                "lock", "columns", "positions", "copied", "load_error", "insert_log", "log_status",
                "ledger_of", "mark_released", "count_rows", "delete_rows", "log_rows", "delete_log", "prune_log",
                "commit", "rollback",
            ),
            _nothing,
        ),
        frozenset({"closed", "close"}),
    ),
    "ledger": Port(
        dict.fromkeys(("delivery", "entries", "batches_between", "replayed_blocks", "dead_letters"), _nothing),
        frozenset({"close"}),
    ),
}  # fmt: skip
"""Port -> its methods that are calls, each with the thing that it touches."""


class _Proxy:
    """Stands before an adapter."""

    def __init__(self, inner: object, port: str, points: CrashPoints) -> None:
        self._inner = inner
        self._port = port
        self._points = points

    def __getattr__(self, name: str) -> Any:
        """The adapter's own attribute, or its method with the points around it."""
        port = PORTS[self._port]
        if name in port.quiet:
            return getattr(self._inner, name)
        if name not in port.calls:
            raise AttributeError(f"{self._port}.{name} is not in app.crash.proxies.PORTS")
        call = self._around(getattr(self._inner, name), f"{self._port}.{name}", port.calls[name])
        self.__dict__[name] = call
        return call

    def _around(self, method: Callable[..., Any], name: str, touches: Touches) -> Callable[..., Any]:
        reach = self._points.reach

        def full_name(*args: Any, **kwargs: Any) -> str:
            subject = touches(*args, **kwargs)
            return f"{name}.{subject}" if subject else name

        async def answer(*args: Any, **kwargs: Any) -> Any:
            call = full_name(*args, **kwargs)
            reach(call, BEFORE)
            found = await method(*args, **kwargs)
            reach(call, AFTER)
            return found

        async def listing(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            call = full_name(*args, **kwargs)
            reach(call, BEFORE)
            async for each in method(*args, **kwargs):
                yield each
            reach(call, AFTER)

        def at_once(*args: Any, **kwargs: Any) -> Any:
            call = full_name(*args, **kwargs)
            reach(call, BEFORE)
            found = method(*args, **kwargs)
            reach(call, AFTER)
            return found

        if inspect.isasyncgenfunction(method):
            return listing
        return answer if inspect.iscoroutinefunction(method) else at_once


def around(points: CrashPoints | None, port: str, adapter: T) -> T:
    """The adapter itself; if crash points are turned on, a proxy before it."""
    return adapter if points is None else cast(T, _Proxy(adapter, port, points))


async def between(points: CrashPoints | None, call: str, answer: Awaitable[T]) -> T:
    """The answer of a single call that belongs to no port, between its points if they are turned on."""
    if points is None:
        return await answer
    points.reach(call, BEFORE)
    found = await answer
    points.reach(call, AFTER)
    return found


def connecting(points: CrashPoints | None, port: str, connect: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
    """`connect` itself; if crash points are turned on, between its points, and with a proxy before each connection."""
    if points is None:
        return connect

    async def connected() -> T:
        return around(points, port, await between(points, f"{port}.connect", connect()))

    return connected


def answers_between(points: CrashPoints, path: str) -> Callable[..., Awaitable[web.StreamResponse]]:
    """A middleware of the collector that passes the points around the writing of each answer to a POST of `path`."""

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        if request.method != "POST" or request.path != path:
            return response
        points.reach("http.answer", BEFORE)
        await response.prepare(request)
        await response.write_eof()
        points.reach("http.answer", AFTER)
        return response

    return middleware
