"""The warehouse's user and password by IAM: short-lived credentials in the place of a password in the URL.

Source: Amazon Redshift API, GetClusterCredentials; Redshift Serverless API, GetCredentials.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, NamedTuple

from psycopg.conninfo import conninfo_to_dict

from app.adapters.aws import BOTO_ERRORS, client_config, failure, made, new_session
from app.errors import ConfigurationError
from app.settings import Settings

VALID_S: Final = 900
"""How long the credentials admit new connections; each connection asks for its own. The least that both services take."""
ATTEMPTS: Final = 3


class Credentials(NamedTuple):
    """The user and the password of one connection."""

    user: str
    password: str


Login = Callable[[], Awaitable[Credentials]]
"""Gives credentials for one connection. Raises ServiceUnavailable: AWS gives none."""


def login_of(settings: Settings) -> Login | None:
    """How these settings log in; None where the warehouse's URL has all that is needed.

    Raises:
        ConfigurationError: the URL lacks the database or the user for whom credentials are asked.
    """
    url = conninfo_to_dict(settings.warehouse_url)
    database, user = str(url.get("dbname") or ""), str(url.get("user") or "")
    if settings.warehouse_workgroup is not None:
        _require("database", database)
        asked = {"workgroupName": settings.warehouse_workgroup, "dbName": database, "durationSeconds": VALID_S}
        return partial(_ask, "redshift-serverless", "get_credentials", asked, ("dbUser", "dbPassword"))
    if settings.warehouse_cluster is not None:
        _require("database", database)
        _require("user", user)
        asked = {
            "ClusterIdentifier": settings.warehouse_cluster, "DbName": database, "DbUser": user, "AutoCreate": False,
            "DurationSeconds": VALID_S,
        }  # fmt: skip
        return partial(_ask, "redshift", "get_cluster_credentials", asked, ("DbUser", "DbPassword"))
    return None


def _require(part: str, value: str) -> None:
    if not value:
        raise ConfigurationError(f"INSTREAM_WAREHOUSE_URL names no {part}: credentials of IAM are given for one")


async def _ask(service: str, call: str, asked: dict[str, Any], names: tuple[str, str]) -> Credentials:
    try:
        answer = await asyncio.to_thread(_answer, service, call, asked)
    except BOTO_ERRORS as exc:
        raise failure(f"{service} {call}", exc) from exc
    return Credentials(*(str(answer[name]) for name in names))


def _answer(service: str, call: str, asked: dict[str, Any]) -> dict[str, Any]:
    """One call, on a client of its own: a connection is rare, and the role's own credentials may have changed."""
    session: Any = new_session()
    client = made(lambda: session.client(service, config=client_config(1, ATTEMPTS)))
    try:
        answer: dict[str, Any] = getattr(client, call)(**asked)
        return answer
    finally:
        client.close()
