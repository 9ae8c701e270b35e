"""`instream delivery quarantined | release`: the transactions that delivery set aside (rule D2)."""

import asyncio
import json
from typing import Annotated, Any, Final

import typer

from agents.delivery.release import Release, Released, release
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse import connect, run, to_warehouse
from app.adapters.warehouse_login import login_of
from app.cli.options import given
from app.cli.services import Asks, settings_to_ask
from app.cli.show import say_why
from app.clock import SystemClock
from app.core.delivery import statements
from app.errors import InstreamError
from app.settings import Settings

app = typer.Typer(
    help="Transactions that delivery set aside.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

FAILURE: Final = 1
INCOMPLETE: Final = 3
_COLUMNS: Final = ("txn_id", "epoch", "partition", "number", "rows", "detail", "set_aside_at")


@app.callback()
def delivery() -> None:
    """Look after the transactions that the warehouse refused."""


@app.command("quarantined")
def quarantined(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the transactions that are set aside, each with the warehouse's error.

    Exit codes: 0 there is none, 3 there are some, 1 the warehouse does not answer.
    """
    settings = settings_to_ask(Asks.WAREHOUSE)
    try:
        found = asyncio.run(_quarantined(settings))
    except InstreamError as exc:
        raise _failed(exc) from exc
    if as_json:
        typer.echo(json.dumps(found, default=str))
    else:
        for row in found:
            typer.echo(f"{row['txn_id']}  {row['rows']} rows, since {row['set_aside_at']}\n    {row['detail']}")
        typer.echo(f"{len(found)} quarantined" if found else "nothing is quarantined")
    if found:
        raise typer.Exit(INCOMPLETE)


@app.command("release")
def release_transaction(
    txn_id: Annotated[str, typer.Argument(help="The transaction, as `quarantined` prints it.", parser=given)],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Load a quarantined transaction whose fault is repaired; a loaded one stays as it is.

    The release is refused if the ledger already has lines of the transaction. Exit codes: 0 it is loaded, 1 it is not.
    """
    settings = settings_to_ask(Asks.WAREHOUSE, Asks.AWS)
    try:
        answer = asyncio.run(_release(settings, txn_id))
    except InstreamError as exc:
        raise _failed(exc) from exc
    if as_json:
        typer.echo(json.dumps({"txn_id": answer.txn_id, "result": answer.result.name.lower(), "present": answer.present}))
    else:
        typer.echo(f"{answer.txn_id}: {answer.result.value}")
        for batch_id, lines in answer.present.items():
            typer.echo(f"    batch {batch_id}: {lines} lines")
    if answer.result is Released.LINES_PRESENT:
        raise typer.Exit(FAILURE)


async def _quarantined(settings: Settings) -> list[dict[str, Any]]:
    """A dictionary a transaction."""
    async with await connect(settings.warehouse_url, login_of(settings)) as connection:
        rows = await run(connection, statements.QUARANTINE)
    return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]


async def _release(settings: Settings, txn_id: str) -> Release:
    """Release on the real ports."""
    store = S3ObjectStore(settings)
    return await release(store, to_warehouse(settings), settings, SystemClock(), txn_id)


def _failed(exc: InstreamError) -> typer.Exit:
    """Show the reason in one line."""
    say_why(exc, "failed")
    return typer.Exit(FAILURE)
