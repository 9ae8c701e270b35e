"""`instream wait`: return as soon as the warehouse's ledger covers every batch registered now."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

import typer

from app.cli.options import LONGEST_WAIT_S, number
from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, JsonOption, print_json
from app.progress import Bar, ProgressLines

if TYPE_CHECKING:
    from agents.audit.coverage import Waited

TELL_EVERY_S: Final = 10


def exit_code_of(waited: "Waited") -> Exit:
    """The command's exit code."""
    if waited.excess:
        return Exit.FAILURE
    return Exit.OK if waited.is_covered else Exit.INCOMPLETE


def wait(
    timeout: Annotated[float, number("Seconds to wait at most.", 0, LONGEST_WAIT_S)] = 300, as_json: JsonOption = False
) -> None:
    """Wait until every batch registered now is in the warehouse, line by line.

    Exit codes: 0 all are covered exactly once, 3 some are late or held by a quarantined transaction, 1 the ledger has more
    lines than were sent.
    """
    from agents.audit.coverage import await_coverage  # noqa: PLC0415 - commands load what they need

    settings = settings_to_ask(Asks.WAREHOUSE, Asks.AWS)
    with Bar(ProgressLines(), "batches are covered", TELL_EVERY_S) as bar:
        result = asyncio.run(await_coverage(settings, timeout, bar))
    if as_json:
        print_json(result)
    else:
        print(f"{result.covered} of {result.registered} batches are covered exactly once after {result.took_s} s")
        for kind, batches in result.named.items():
            count = getattr(result, kind)
            more = ", ..." if count > len(batches) else ""
            print(f"{kind}: {count} {'batch' if count == 1 else 'batches'}: {', '.join(batches)}{more}")
    raise typer.Exit(exit_code_of(result))
