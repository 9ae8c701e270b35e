"""Which messages of a partition of `rows` are damaged steps, and how a step is decided again (rule E2).

A message that is no step counts for no reader. It was a step if the steps behind it say so: the next number jumps, and the
next step names its offset as predecessor. Every other unreadable message is another program's.

A step is a pure function of the state before it and of its source messages, but for the columns of enrichment: articles and
campaigns are read as they are now. The log has both: the steps before, and on `blocks` the messages between the source
ranges of the two neighbours. So the step can be decided again. The steps behind it are the proof. Each of them is decided
again, too, and its numbers, ledger, changes of the state and meta must be those of the log, until no event of the damaged
step is open.

If several steps in a row are damaged, nobody knows which source messages each of them took. The first one takes as many as a
step may, the next ones take the rest. Frames of the window are named by the step that stored them, so other steps than the
lost ones are found out by the proof: they are right only if the lost ones were cut at the same places, or stored nothing.
If the log ends before the proof is complete, they are right only if no owner goes on from the lost steps.
"""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from app.core.etl.decode import ANY_FAILURE
from app.core.etl.step import GAP_DECLARED, PartitionEtl
from app.core.formats.source import SourceMessage
from app.core.formats.step_history import Accepted, Candidate
from app.core.formats.step_message import StepMessage, digest_of
from app.core.repair.replacements import Replacements
from app.core.sink.chain import ChainEnd
from app.errors import InstreamError, NewerFormat, RepairRefused

NOT_COMPARED: Final = frozenset({"rows"})
"""Enrichment reads articles and campaigns as they are now."""


class DecidedStep(NamedTuple):
    """A step that is decided again in place of a damaged one."""

    step: StepMessage
    took: int
    """Number of source messages."""


def damaged_between(
    accepted: Accepted, step: StepMessage | Candidate, unreadable: Collection[int], named: Collection[int] = ()
) -> list[int]:
    """The offsets of the damaged steps between the last step that counts and `step`, whose number shows a gap.

    Args:
        accepted: the last step that counts.
        step: a readable step with a number beyond the next one.
        unreadable: offsets of messages that are no step.
        named: offsets that a readable step names: they were steps for certain. The others among the unreadable messages may
            be another program's; if the log does not say which, the last ones are taken.

    Raises:
        RepairRefused: messages are gone, so nothing can be replaced.
    """
    missing = step.number - accepted.number - 1
    before = {offset for offset in unreadable if accepted.offset < offset < step.predecessor}
    certain = {step.predecessor} | (before & set(named))
    others = sorted(before - certain)
    found = sorted([*certain, *others[len(others) - max(0, missing - len(certain)) :]])[-missing:]
    if len(found) < missing or step.predecessor <= accepted.offset:
        raise RepairRefused(
            f"steps {accepted.number + 1} to {step.number - 1} are missing, and the log has no messages at their places"
        )
    return found


def source_range(applied: int, step: StepMessage) -> tuple[int, int]:
    """The first and the last offset on `blocks` that the damaged steps before `step` took; `applied` is the one before.

    Raises:
        RepairRefused: the range has no length that steps can have.
    """
    if step.source_first <= applied:
        raise RepairRefused(f"step {step.number} takes the source from {step.source_first} on, and {applied} is applied")
    return applied + 1, step.source_first - 1


def decide_again(core: PartitionEtl, waiting: Sequence[SourceMessage], accepted: Accepted, behind: int) -> DecidedStep:
    """The step that replaces the next damaged one.

    Args:
        core: the partition behind the last step that counts.
        waiting: the source messages that the damaged steps took together, less those of the steps decided so far.
        accepted: the last step that counts.
        behind: how many more damaged steps follow; the last of them takes everything that is left.

    Raises:
        RepairRefused: these messages are not what steps can have taken.
    """
    taken = core.take(waiting)
    if not behind and taken < len(waiting):
        raise RepairRefused(
            f"step {accepted.number + 1}: its source messages, {len(waiting)} of them, do not fit a step by today's settings"
        )
    try:
        return DecidedStep(_decide(core, waiting[:taken], accepted), taken)
    except (NewerFormat, MemoryError):
        raise
    except InstreamError as exc:
        raise RepairRefused(f"step {accepted.number + 1} cannot be decided again: {type(exc).__name__}: {exc}") from exc


def _decide(core: PartitionEtl, messages: Sequence[SourceMessage], accepted: Accepted) -> StepMessage:
    """As an owner decides: a step that fails is taken line by line (rule E6)."""
    number, predecessor = accepted.number + 1, accepted.offset
    try:
        return core.decide(messages, number, predecessor).message
    except (InstreamError, MemoryError):
        raise
    except ANY_FAILURE:
        return core.decide(messages, number, predecessor, careful=True).message


def declares_gap(step: StepMessage) -> bool:
    """Whether the step gives source messages up that retention had deleted (rule E4)."""
    return any(alarm.startswith(GAP_DECLARED) for alarm in step.alarms)


def prove(core: PartitionEtl, step: StepMessage, messages: Sequence[SourceMessage], accepted: Accepted) -> None:
    """See that the core would decide `step`, which is in the log and counts behind `accepted`, from its source `messages`.

    Raises:
        RepairRefused: the core decides another step; the text says what differs.
    """
    if declares_gap(step):
        differs = differences(core.declare_gap(step.source_last + 1, step.number, accepted.offset).message, step)
    else:
        try:
            differs = differences(_decide(core, messages, accepted), step)
            if differs:  # its owner may have taken it line by line
                careful = core.decide(messages, step.number, accepted.offset, careful=True).message
                differs = differs if differences(careful, step) else []
        except (NewerFormat, MemoryError):
            raise
        except InstreamError as exc:
            differs = [f"{type(exc).__name__}: {exc}"]
    if differs:
        raise RepairRefused(
            f"decided again, step {step.number} is not the step of the log, so the damaged step before it was another one, "
            f"or the settings are others than then; it differs in {', '.join(differs)}"
        )


def differences(decided: StepMessage, found: StepMessage) -> list[str]:
    """The fields in which two steps differ, rows left out; changes are named by table."""
    fields = [name for name in found.__struct_fields__ if name not in NOT_COMPARED | {"changes"}]
    differ = [name for name in fields if getattr(decided, name) != getattr(found, name)]
    ours = {change.table: change for change in decided.changes}
    theirs = {change.table: change for change in found.changes}
    tables = [f"changes of {table}" for table in sorted(ours.keys() | theirs.keys()) if ours.get(table) != theirs.get(table)]
    return differ + tables


def refuse_shared_out(end: ChainEnd, replaced: Replacements) -> None:
    """See that the sink can go on from its chain's end with these replacements.

    Raises:
        RepairRefused: its last transaction ends between damaged steps, and has other lines than the replacement there.
    """
    message = replaced.at(end.accepted.offset, None)
    if message is None or end.digest in {"", digest_of(message).hex()} or replaced.ends_run(end.accepted.offset):
        return
    raise RepairRefused(
        f"transaction {end.number} ends with the damaged step at {end.accepted.offset}, and more damaged steps follow; "
        "decided again, that step has other lines, so rows would be lost or doubled"
    )
