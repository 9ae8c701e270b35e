"""`instream trace`: what became of an event, a page view, or a line."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from app.cli.options import MomentMs, given, moment, whole
from app.cli.services import Asks, settings_to_ask
from app.cli.show import Exit, JsonOption, print_json
from app.progress import Bar, ProgressLines

if TYPE_CHECKING:
    from agents.audit.trace.tracer import Tracer, Within
    from app.core.audit.trace.fate import LineFate, Trace
    from app.settings import Settings

TEXT_HOURS_MS: Final = 3_600_000
"""A text is looked for in the raw files of the last hour, if no time is given: there is no index of texts."""
LAST_LINE: Final = 65_535

Since = Annotated[MomentMs | None, moment("Only lines received since then.")]
Until = Annotated[MomentMs | None, moment("Only lines received until then.", ends=True)]


class Question(msgspec.Struct, kw_only=True):
    """What to trace: exactly one of these is given."""

    event_ids: list[str] = []
    page_view_id: str | None = None
    text: str | None = None
    batch_id: str | None = None
    line: int = 0
    since_ms: int | None = None
    until_ms: int | None = None
    with_raw: bool = False


async def ask(settings: "Settings", question: Question) -> "list[Trace]":
    """The traces that a question asks for, from the real services.

    Raises: as `agents.audit.trace.tracer.Tracer.events`.
    """
    from agents.audit.trace.ports import open_trace_ports  # noqa: PLC0415 - commands load what they need
    from agents.audit.trace.tracer import Tracer, Within  # noqa: PLC0415

    async with open_trace_ports(settings) as ports:
        with Bar(ProgressLines(), "raw files without an index are searched") as bar:
            tracer = Tracer(ports, settings, bar, with_raw=question.with_raw)
            if question.text is not None and question.since_ms is None:
                question.since_ms = ports.clock.now_ms() - TEXT_HOURS_MS
            return await _answer(tracer, question, Within(question.since_ms, question.until_ms))


async def _answer(tracer: "Tracer", question: Question, within: "Within") -> "list[Trace]":
    if question.event_ids:
        return await tracer.events(question.event_ids, within)
    if question.page_view_id is not None:
        return [await tracer.page_view(question.page_view_id, within)]
    if question.text is not None:
        return [await tracer.text(question.text, within)]
    return [await tracer.line(question.batch_id or "", question.line)]


def trace(  # noqa: PLR0913, PLR0917 - the options of a command
    event: Annotated[list[str] | None, typer.Argument(help="Ids of events.", parser=given, metavar="EVENT_ID...")] = None,
    page_view: Annotated[str | None, typer.Option(help="Trace every event of this page view.", parser=given)] = None,
    text: Annotated[
        str | None, typer.Option(help="Trace the lines that contain this text [default: of the last hour].", parser=given)
    ] = None,
    batch: Annotated[str | None, typer.Option(help="Trace one line of this batch.", parser=given)] = None,
    line: Annotated[int | None, whole("The number of the line in the batch, from 0 on.", 0, LAST_LINE)] = None,
    since: Since = None,
    until: Until = None,
    raw: Annotated[bool, typer.Option("--raw", help="Show the stored lines, which have personal data.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what became of events: from the line in the raw file to the row in the warehouse, or the stage that holds it.

    With --json one id gives one object, several give a list. Exit codes: 0 every id is found, 3 one is not, 1 a service does
    not answer.
    """
    if [bool(event), page_view is not None, text is not None, batch is not None].count(True) != 1:
        raise typer.BadParameter("name events, or give one of --page-view, --text, and --batch with --line")
    if (batch is None) != (line is None):
        raise typer.BadParameter("--batch and --line go together")
    if batch is not None and not _is_batch_id(batch):
        raise typer.BadParameter(f"--batch {batch!r} is no id of a batch")
    question = Question(
        event_ids=list(event or []), page_view_id=page_view, text=text, batch_id=batch, line=line or 0, since_ms=since,
        until_ms=until, with_raw=raw,
    )  # fmt: skip
    traces = asyncio.run(ask(settings_to_ask(Asks.WAREHOUSE, Asks.AWS), question))
    if as_json:
        answers = [as_answer(each, is_whole=bool(event)) for each in traces]
        print_json(answers[0] if len(answers) == 1 else answers)
    else:
        for each in traces:
            print("\n".join(words_of(each, is_whole=bool(event))))
    if not all(each.found for each in traces):
        raise typer.Exit(Exit.INCOMPLETE)


def _is_batch_id(text: str) -> bool:
    import uuid  # noqa: PLC0415

    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def as_answer(trace: "Trace", *, is_whole: bool) -> dict[str, Any]:
    """The answer as JSON: the fate of the id, and all lines that carry it.

    `is_whole` says that one fate answers for all lines, which are copies of one event; else each line answers for itself.
    """
    own = msgspec.to_builtins(trace.answer)
    if not trace.found:
        own |= {"batch_id": None, "line": None, "raw_key": None}
    head = {"id": trace.id, "found": trace.found}
    searched = {"since": trace.since, "until": trace.until, "faults": trace.faults, "is_cut": trace.is_cut}
    lines = [msgspec.to_builtins(line) for line in trace.lines]
    return head | (own if is_whole or len(lines) <= 1 else {"fate": None, "reason": None}) | {"lines": lines} | searched


def words_of(trace: "Trace", *, is_whole: bool) -> list[str]:
    """The answer in words, a line each."""
    if not trace.found:
        return [f"{trace.id}  unknown: {trace.answer.reason}", *_faults(trace)]
    found = trace.lines[:1] if is_whole else trace.lines
    out = [] if is_whole else [f"{trace.id}: {len(trace.lines)} {'line' if len(trace.lines) == 1 else 'lines'}"]
    for line in found:
        out += _words_of_line(line, trace.id if is_whole else line.event_id or "(no event id)")
    for line in trace.lines[1:] if is_whole else []:
        out.append(f"  and also   batch {line.batch_id} line {line.line}, received {line.received_at}: {_fate(line)}")
    if trace.is_cut:
        out.append("there are more lines than these")
    return [*out, *_faults(trace)]


def _faults(trace: "Trace") -> list[str]:
    return [f"not searched: {fault}" for fault in trace.faults]


def _words_of_line(line: "LineFate", name: str) -> list[str]:
    about = f"{line.event_type or 'no event type'}" + (f" of page view {line.page_view_id}" if line.page_view_id else "")
    registry = f"batch {line.batch_id}" + (f", {line.batch_state}" if line.is_registered else ", not in the registry")
    replays = f", sent again {line.attempts} times" if line.attempts else ""
    block = f"block {line.block} on partition {line.partition}" if line.block is not None else "unknown block"
    kafka = f", offset {line.offset} of topic blocks" if line.offset is not None else ""
    out = [
        f"{name}  {_fate(line)}",
        f"  event      {about}, received {line.received_at}",
        f"  raw file   {line.raw_key} line {line.line}",
        f"  registry   {registry}{replays}; {block}{kafka}",
    ]
    if line.txn_id is not None:
        out.append(f"  data       transaction {line.txn_id}" + (f", file {line.file}" if line.file else ""))
    if line.row_visible_at is not None:
        out.append(f"  warehouse  visible since {line.row_visible_at}")
    if line.raw is not None:
        out.append(f"  stored     {line.raw}")
    return out


_OF_ENGAGEMENTS: Final = {
    "no_first": "no page view of its id came",
    "late": "its page view was closed before",
    "extra": "its page view took another second event",
}


def _fate(line: "LineFate") -> str:
    """The fate in words."""
    match line.fate:
        case "engagement":
            why = _OF_ENGAGEMENTS.get(line.reason, "no page view took it")
            return f"engagement: row in engagements, {line.reason}: {why}"
        case "rejected":
            return f"rejected: row in rejected, {line.kind}, by rule {line.reason}"
        case _:
            return line.reason if line.reason.startswith(line.fate) else f"{line.fate}: {line.reason}"
