"""Athena: runs a statement and returns its rows."""

import asyncio
from functools import partial
from typing import Any, Final, Protocol

from app.adapters.aws import BOTO_ERRORS, Threads, client_config, failure, made, new_session
from app.errors import ConfigurationError, ServiceUnavailable
from app.settings import Settings

POLL_S: Final = 0.5
TIMEOUT_S: Final = 1800
"""Athena ends a query after 30 minutes. Source: Service quotas, DML query timeout."""
_RUNNING: Final = frozenset({"QUEUED", "RUNNING"})


class SqlEngine(Protocol):
    """Runs Athena's SQL over the files of the bucket."""

    async def run(self, sql: str) -> list[dict[str, Any]]:
        """Run one statement. Returns: the rows of a query, column -> value; real Athena's values are texts, or None.

        Raises:
            ConfigurationError: the statement is refused.
            OutsideError: the service does not answer.
        """


class Athena:
    """The real one."""

    def __init__(self, settings: Settings) -> None:
        self._database = settings.athena_database
        self._output = settings.athena_output
        self._workgroup = settings.athena_workgroup
        self._threads = Threads("athena", 1)
        self._client: Any = made(lambda: new_session().client("athena", config=client_config(1, 3)))

    async def run(self, sql: str) -> list[dict[str, Any]]:
        """Run one statement."""
        context = {} if sql.startswith("CREATE DATABASE") else {"QueryExecutionContext": {"Database": self._database}}
        result = {"ResultConfiguration": {"OutputLocation": self._output}} if self._output else {}
        group = {"WorkGroup": self._workgroup} if self._workgroup else {}
        try:
            begun = await self._threads.run(
                partial(self._client.start_query_execution, QueryString=sql, **context, **result, **group)
            )
            query = begun["QueryExecutionId"]
            async with asyncio.timeout(TIMEOUT_S):
                while (status := await self._status(query))["State"] in _RUNNING:  # noqa: ASYNC110 - Athena tells nobody
                    await asyncio.sleep(POLL_S)
            if status["State"] != "SUCCEEDED":
                raise ConfigurationError(f"Athena refused the statement: {status.get('StateChangeReason', status['State'])}")
            return await self._rows(query)
        except BOTO_ERRORS as exc:
            raise failure("Athena", exc) from exc
        except TimeoutError as exc:
            raise ServiceUnavailable(f"Athena has no answer after {TIMEOUT_S} s") from exc

    def close(self) -> None:
        """Let go of thread and connections."""
        self._threads.close()
        self._client.close()

    async def _status(self, query: str) -> dict[str, Any]:
        found = await self._threads.run(partial(self._client.get_query_execution, QueryExecutionId=query))
        status: dict[str, Any] = found["QueryExecution"]["Status"]
        return status

    async def _rows(self, query: str) -> list[dict[str, Any]]:
        """All pages of the result; the first row of the first page has the names."""
        rows: list[dict[str, Any]] = []
        names: list[str] | None = None
        token: dict[str, str] = {}
        while True:
            page = await self._threads.run(partial(self._client.get_query_results, QueryExecutionId=query, **token))
            for row in page["ResultSet"]["Rows"]:
                values = [cell.get("VarCharValue") for cell in row["Data"]]
                if names is None:
                    names = [str(value) for value in values]
                else:
                    rows.append(dict(zip(names, values, strict=True)))
            if "NextToken" not in page:
                return rows
            token = {"NextToken": page["NextToken"]}
