"""Every error the project raises.

InstreamError
├── ConfigurationError            what the operator set does not fit; the message names the remedy
│   ├── WrongPartitionCount
│   └── SchemaRefused
├── RequestRejected               the collector's answers other than 200
├── FormatInvalid                 bytes that are not what their place promises
│   ├── EnvelopeInvalid
│   ├── FrameInvalid
│   ├── StepMessageInvalid
│   └── RegistryItemsInvalid
├── NewerFormat                   written by a newer version: the reader waits for its upgrade
├── HistoryBroken                 a worker must end and recover before it does anything else
│   ├── StepConflict
│   ├── StepGap
│   ├── ConservationBroken
│   ├── SourceGap
│   ├── TopicRecreated
│   ├── EpochMismatch
│   ├── DigestMismatch
│   └── StoreLost
├── ChainBroken                   the sink's numbered chain is not what it must be
│   └── ChainGap
├── OutsideError                  a service we call
│   ├── ServiceUnavailable        nothing happened, or nothing that a retry would double
│   ├── OutcomeUnknown            it may have happened
│   ├── ObjectMissing
│   ├── AccessDenied              a permission is missing: no retry helps
│   ├── IteratorExpired
│   ├── WarehouseError
│   ├── LoadDeferred
│   └── LoadRejected
├── DeadLettersExceeded           too much of a partition's input cannot be read
├── WorkerStalled                 a worker's input waits and it does not move
├── IllegalMove                   a lifecycle asked for a transition it does not have
├── BenchmarkWrong                a benchmark's rows are not those that its events make
└── LocalStackError               the embedded stack cannot start or is gone
"""

from collections.abc import Sequence
from typing import ClassVar


class InstreamError(Exception):
    """Base of all; `retriable` says whether the same call may succeed later unchanged."""

    retriable: ClassVar[bool] = False


class ConfigurationError(InstreamError):
    """A setting, a file or a topic does not fit; the text names which and the remedy."""


class SettingsRefused(ConfigurationError):
    """A variable's value is refused, or a variable is no setting; a command ends as after a wrong use."""


class WrongPartitionCount(ConfigurationError):
    """A topic has another number of partitions than PARTITIONS says."""


class SchemaRefused(ConfigurationError):
    """The warehouse's schema differs from the catalogue in what only an operator may change; nothing was changed."""


class RequestRejected(InstreamError):
    """A request that the collector does not take: HTTP status, error code, detail and perhaps Retry-After."""

    def __init__(self, status: int, code: str, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s


class FormatInvalid(InstreamError):
    """Bytes are not in the format that their place promises."""


class EnvelopeInvalid(FormatInvalid):
    """A message on `blocks` is no block and no control message."""


class FrameInvalid(FormatInvalid):
    """A block's frame cannot be decompressed into its lines."""


class StepMessageInvalid(FormatInvalid):
    """A message on `rows` is no step of this version."""


class RegistryItemsInvalid(FormatInvalid):
    """Items of the registry that are no batch. All others were read.

    Attributes:
        items: for each item its id and the reason.
    """

    def __init__(self, items: Sequence[str]) -> None:
        super().__init__("; ".join(items))
        self.items = items


class NewerFormat(InstreamError):
    """Bytes of a version beyond the reader's own, or that hold what only a newer version knows.

    Nothing is wrong with them: the reader waits, not ready, until it is upgraded, and neither skips nor rejects them.
    """


class HistoryBroken(InstreamError):
    """This worker's state differs from the log: it must end and recover."""


class StepConflict(HistoryBroken):
    """Another worker wrote to `rows` between this owner's last read and its step (rule E3)."""


class ConservationBroken(HistoryBroken):
    """A step does not account for each line that it took, or emits other rows than its ledger says (rule E9)."""


class StepGap(HistoryBroken):
    """A step number beyond the applied one + 1: the store is wiped and rebuilt (rule E2).

    If a damaged step is the reason, that does not help: `instream repair-log` replaces the step.
    """


class SourceGap(HistoryBroken):
    """A source message that is not the applied offset + 1 and cannot be sought back to (rule E4)."""


class TopicRecreated(HistoryBroken):
    """The applied offset lies beyond the topic's end: the topic was recreated; raise the epoch (rule E4)."""


class EpochMismatch(HistoryBroken):
    """A block or step of another epoch on this epoch's topic."""


class DigestMismatch(HistoryBroken):
    """The last counted message in the log is not the one the store or the chain was built from (rules E5, S5)."""


class StoreLost(HistoryBroken):
    """The topic `rows` is empty where the chain or commits say that it was not (rule E5)."""


class ChainBroken(InstreamError):
    """The transaction chain of a partition contradicts itself."""


class ChainGap(ChainBroken):
    """Rows between the chain's end and the log's head are gone; `instream sink accept-gap` goes on (rule S5).

    If a damaged step is the reason, `instream repair-log` replaces it, and no row is lost (rule E2).
    """


class RepairRefused(InstreamError):
    """A damaged step of the log cannot be decided again with certainty: nothing is written (rule E2)."""


class OutsideError(InstreamError):
    """A service that we call failed.

    Args:
        text: the call, its subject and its failure.
        kind: the failure alone, fit to be shown to anybody: a code or a name of an error. Default: the class's name.
    """

    def __init__(self, text: str = "", kind: str | None = None) -> None:
        super().__init__(text)
        self.kind = kind or type(self).__name__


class ServiceUnavailable(OutsideError):
    """The call did not happen, or is harmless to repeat."""

    retriable = True


class OutcomeUnknown(OutsideError):
    """The call may have happened; ask before repeating it."""

    retriable = True


class ObjectMissing(OutsideError):
    """S3 has no object under this key."""


class AccessDenied(OutsideError):
    """S3 refuses to read, or to say that a key is missing; the text names the permissions. Only an operator can mend it."""


class IteratorExpired(OutsideError):
    """A shard iterator is older than Kinesis keeps it; renew it from the checkpoint."""

    retriable = True


class WarehouseError(OutsideError):
    """The warehouse refused a statement, or its connection is lost; `core.load_plan.classify` says what that means.

    Args:
        sqlstate: the error's five characters; None where the connection itself failed.
        message: the error's primary message and detail.
    """

    def __init__(self, sqlstate: str | None, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message


class LoadDeferred(OutsideError):
    """The warehouse cannot load now: tried later, for ever (rule D2)."""

    retriable = True


class LoadRejected(OutsideError):
    """The warehouse refuses a file's content: bisected and quarantined (rule D2)."""


class DeadLettersExceeded(InstreamError):
    """So much of a partition's input is unreadable that it is no chance: the worker ends until an operator has looked."""


class WorkerStalled(InstreamError):
    """A worker stands still although there is something to do: it ends and is restarted."""


class IllegalMove(InstreamError):
    """A lifecycle was asked for a transition that its table does not have; nothing changed."""


class BenchmarkWrong(InstreamError):
    """A benchmark found other rows than its events make: its figures mean nothing."""


class LocalStackError(InstreamError):
    """The embedded stack cannot start, or is gone; the text names the remedy."""
