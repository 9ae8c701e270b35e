"""The command `instream`: mounts one file a command, and turns errors into one line and an exit code."""

import sys

import typer
from typer.exceptions import TyperException

from app.cli.audit import audit
from app.cli.bench import bench
from app.cli.dead_letters import dead_letters
from app.cli.demo import demo
from app.cli.index import index
from app.cli.init import init
from app.cli.load import load
from app.cli.prove import prove
from app.cli.rebuild import plan_rules, rebuild
from app.cli.repair import repair
from app.cli.repair_log import repair_log
from app.cli.replay import replay
from app.cli.show import Exit, log_to_stderr, say_why
from app.cli.status import status
from app.cli.trace import trace
from app.cli.up import down, up
from app.cli.wait import wait
from app.errors import InstreamError, SettingsRefused

app = typer.Typer(
    help="Browser events in the data warehouse in under five minutes, none lost, none twice.",
    no_args_is_help=True, rich_markup_mode="markdown", add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip
OWN_STACK = frozenset({"up", "down", "status", "demo", "bench"})
"""Commands that start a stack or look at it from outside; the others work on the running stack, or on AWS."""
GROUP = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.callback()
def enter_stack(context: typer.Context) -> None:
    """Browser events in the data warehouse in under five minutes, none lost, none twice."""
    log_to_stderr()
    if context.invoked_subcommand not in OWN_STACK:
        from app.local.stack.stack_file import enter, home_of_environment  # noqa: PLC0415 - commands load what they need

        enter(home_of_environment())  # use the stack in INSTREAM_HOME if one is up; else the environment leads to AWS


for command in (
    demo, up, down, status, load, wait, audit, prove, replay, trace, index, dead_letters, repair, repair_log, rebuild,
    plan_rules, init, bench,
):  # fmt: skip
    app.command()(command)


@app.command("sink", context_settings=GROUP)
def sink(context: typer.Context) -> None:
    """Repair the sink's transaction chains (`instream sink --help`)."""
    from app.cli.sink import app as commands  # noqa: PLC0415 - loads Kafka's and S3's clients

    _run(commands, context.args, "instream sink")


@app.command("delivery", context_settings=GROUP)
def delivery(context: typer.Context) -> None:
    """Handle the transactions that the warehouse refused (`instream delivery --help`)."""
    from app.cli.delivery import app as commands  # noqa: PLC0415

    _run(commands, context.args, "instream delivery")


@app.command("athena", context_settings=GROUP)
def athena(context: typer.Context) -> None:
    """Find missing batches with SQL over the files of the bucket (`instream athena --help`)."""
    from app.cli.athena import app as commands  # noqa: PLC0415

    _run(commands, context.args, "instream athena")


def _run(commands: typer.Typer, words: list[str], name: str) -> None:
    """Run the commands of a group."""
    if code := commands(words, prog_name=name, standalone_mode=False):
        raise typer.Exit(code)


def main() -> None:
    """Run the command line.

    An error is one line on stderr. The exit code is 1; 2 after a wrong use or with a setting that is refused; 130 after an
    interruption.
    """
    try:
        sys.exit(app(prog_name="instream", standalone_mode=False))
    except TyperException as exc:
        if reason := " ".join(exc.format_message().split()):  # None if the help was shown instead
            context = getattr(exc, "ctx", None)
            command = context.command_path if context else "instream"
            print(f"{command}: {reason} (see `{command} --help`)", file=sys.stderr)
        sys.exit(Exit.USAGE)
    except SettingsRefused as exc:
        say_why(exc)
        sys.exit(Exit.USAGE)
    except InstreamError as exc:
        say_why(exc)
        sys.exit(Exit.FAILURE)
    except OSError as exc:
        print(f"instream: {exc.strerror}: {exc.filename}" if exc.filename else f"instream: {exc}", file=sys.stderr)
        sys.exit(Exit.FAILURE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
