"""Shared by the three AWS adapters: clients with short timeouts, threads to run them in, and names for their failures."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoRegionError,
    ParamValidationError,
    ProxyConnectionError,
    SSLError,
)

from app.errors import ConfigurationError, OutcomeUnknown, OutsideError, ServiceUnavailable

P = ParamSpec("P")
R = TypeVar("R")

CONNECT_TIMEOUT_S: Final = 3
READ_TIMEOUT_S: Final = 10
_NEVER_SENT: Final = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError, SSLError)
_DID_IT_HAPPEN: Final = frozenset({500, 502, 504})
_SESSION_MISSES: Final = "set AWS_REGION or AWS_DEFAULT_REGION (and, off AWS, AWS_ENDPOINT_URL)"
REGION_VARIABLES: Final = ("AWS_DEFAULT_REGION", "AWS_REGION")
"""The first that is set counts."""


def new_session() -> boto3.session.Session:
    """A session of the caller's own: boto3's default one must not be shared between threads while clients are made.

    boto3 itself reads AWS_DEFAULT_REGION only; AWS's containers, functions and other SDKs set AWS_REGION. Either counts.
    """
    region = next((found for name in REGION_VARIABLES if (found := os.environ.get(name))), None)
    return boto3.session.Session(region_name=region)


def client_config(threads: int, attempts: int) -> Config:
    """Timeouts of seconds and at most `attempts` tries: the caller knows better when to try again."""
    return Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=threads,
        retries={"mode": "standard", "total_max_attempts": attempts},
        tcp_keepalive=True,
    )


def made(make: Callable[[], R]) -> R:
    """The client that `make` makes.

    Raises:
        ConfigurationError: the environment names no region.
    """
    try:
        return make()
    except NoRegionError as exc:
        raise ConfigurationError(_SESSION_MISSES) from exc


def error_code(exc: ClientError) -> str:
    """The service's own code for an error, e.g. `NoSuchKey`."""
    return str(exc.response.get("Error", {}).get("Code", ""))


def status_of(exc: ClientError) -> int:
    """The HTTP status of an error answer."""
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def failure(what: str, exc: Exception, *, write: bool = False) -> OutsideError:
    """Our name for a failed call; decided by class, code and status, never by message.

    Args:
        what: the call and its subject, for the text.
        exc: what boto3 raised.
        write: repeating the call is not harmless, so "may have happened" and "did not happen" are different errors.

    Returns:
        OutcomeUnknown for a write whose answer was lost (a read timeout, a connection closed, 500, 502, 504); else
        ServiceUnavailable: throttled, refused, not reached, or harmless to repeat.

    Raises:
        ParamValidationError: the call itself is wrong; no retry mends it.
    """
    if isinstance(exc, ParamValidationError):
        raise exc
    if isinstance(exc, ClientError):
        kind = f"{error_code(exc)} ({status_of(exc)})"
        text = f"{what}: {kind}"
        return OutcomeUnknown(text, kind) if write and status_of(exc) in _DID_IT_HAPPEN else ServiceUnavailable(text, kind)
    kind = type(exc).__name__
    text = f"{what}: {kind}: {exc}"
    return ServiceUnavailable(text, kind) if not write or isinstance(exc, _NEVER_SENT) else OutcomeUnknown(text, kind)


class Threads:
    """Runs the blocking calls of one adapter, so that a slow service starves no other."""

    def __init__(self, name: str, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        """`call(*args, **kwargs)` in a thread. A cancelled wait does not undo the call."""
        return asyncio.get_running_loop().run_in_executor(self._executor, partial(call, *args, **kwargs))

    def close(self) -> None:
        """Let the threads end once their calls have."""
        self._executor.shutdown(wait=False, cancel_futures=True)


BOTO_ERRORS: Final = (ClientError, BotoCoreError)
"""The exceptions of a boto3 call."""
