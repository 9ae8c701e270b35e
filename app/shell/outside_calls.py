"""The calls to services that a process waits for now, and those that failed: /ready names a service that is of no use.

A process that waits for S3 or Kafka looks alive from outside, and its own loops know only that they wait. Here every call
is noted when it begins and when it ends.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

from app.errors import OutcomeUnknown, ServiceUnavailable

T = TypeVar("T")
ANSWER_S: Final = 5.0
"""A call without an answer for so long is named by /ready."""
FORGET_S: Final = 60.0
"""A failure that is not repeated is forgotten after this time ..."""
ANSWERED_S: Final = 10.0
"""... and after this time if other calls of the service have answers."""
FAILURES: Final = (ServiceUnavailable, OutcomeUnknown)
"""Errors that say that a service is of no use now; another error is an answer."""


class OutsideCalls:
    """The calls of one process."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """Know of no call; `now_s` is a clock that never goes back."""
        self._now_s = now_s
        self._begun: dict[int, tuple[str, str, float, float]] = {}
        """Token -> service, call, its begin, and its limit; the oldest call first."""
        self._failed: dict[tuple[str, str], tuple[float, str]] = {}
        """Service and call -> the time and the words of its last failure, until the call has an answer."""
        self._tokens = 0

    def begin(self, service: str, call: str, limit_s: float = ANSWER_S) -> int:
        """Note that a call begins. Returns: its token, for `end`."""
        self._tokens += 1
        self._begun[self._tokens] = (service, call, self._now_s(), limit_s)
        return self._tokens

    def end(self, token: int, exc: BaseException | None = None) -> None:
        """Note that a call has ended: with an answer, with a failure, or because nobody waits for it any more."""
        service, call, _, _ = self._begun.pop(token)
        if isinstance(exc, FAILURES):
            self._failed[service, call] = self._now_s(), f"{service} fails: {call}: {' '.join(str(exc).split())}"
        elif self._failed and not isinstance(exc, asyncio.CancelledError | GeneratorExit):
            self._answered(service, call)

    def _answered(self, service: str, call: str) -> None:
        """Forget the failure of this call, and failures of the service that were not repeated for some time."""
        now_s = self._now_s()
        for known, (at_s, _) in list(self._failed.items()):
            if known == (service, call) or (known[0] == service and now_s - at_s >= ANSWERED_S):
                del self._failed[known]

    @contextmanager
    def during(self, service: str, call: str, limit_s: float = ANSWER_S) -> Iterator[None]:
        """Note the call that the block makes."""
        token = self.begin(service, call, limit_s)
        try:
            yield
        except BaseException as exc:
            self.end(token, exc)
            raise
        self.end(token)

    def follow(self, service: str, call: str, answer: Awaitable[T]) -> Awaitable[T]:
        """Note a call whose answer is a future; the future itself."""
        if isinstance(answer, asyncio.Future):
            token = self.begin(service, call)
            answer.add_done_callback(lambda done: self.end(token, None if done.cancelled() else done.exception()))
        return answer

    def reason(self) -> str | None:
        """The service that does not answer, or that fails a call; None if there is none."""
        now_s = self._now_s()
        for service, call, since_s, limit_s in self._begun.values():
            if now_s - since_s >= limit_s:
                return f"{service} does not answer {call} for {now_s - since_s:.0f} s"
        return next((why for at_s, why in self._failed.values() if now_s - at_s < FORGET_S), None)


class _Noted:
    """Stands before an adapter and notes its calls."""

    def __init__(self, inner: object, service: str, calls: OutsideCalls, limits_s: Mapping[str, float]) -> None:
        self._inner = inner
        self._service = service
        self._calls = calls
        self._limits_s = limits_s

    def __getattr__(self, name: str) -> Any:
        """The adapter's own attribute, or its method with the notes around it."""
        found = getattr(self._inner, name)
        if inspect.isasyncgenfunction(found):
            noted: Any = self._listing(name, found)
        elif inspect.iscoroutinefunction(found):
            noted = self._answer(name, found)
        else:
            return found
        self.__dict__[name] = noted
        return noted

    def _answer(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        limit_s = self._limits_s.get(name, ANSWER_S)

        async def call(*args: Any, **kwargs: Any) -> Any:
            with self._calls.during(self._service, name, limit_s):
                return await method(*args, **kwargs)

        return call

    def _listing(self, name: str, method: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def listing(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            found = aiter(method(*args, **kwargs))
            while True:
                with self._calls.during(self._service, name):
                    try:
                        each = await anext(found)
                    except StopAsyncIteration:
                        return
                yield each

        return listing


def noted(calls: OutsideCalls, service: str, adapter: T, limits_s: Mapping[str, float] = {}) -> T:
    """The adapter, with its calls noted under the name of the service; `limits_s` has the calls that may take longer."""
    return cast(T, _Noted(adapter, service, calls, limits_s))


def noted_sessions(
    calls: OutsideCalls, service: str, connect: Callable[[], Awaitable[T]], limits_s: Mapping[str, float] = {}
) -> Callable[[], Awaitable[T]]:
    """`connect`, with itself and the calls of each of its sessions noted."""

    async def connected() -> T:
        with calls.during(service, "connect"):
            session = await connect()
        return noted(calls, service, session, limits_s)

    return connected
