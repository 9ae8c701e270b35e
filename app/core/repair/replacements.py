"""The steps that replace damaged messages of one partition of topic `rows`, for every reader of the log (rule E2)."""

from collections.abc import Iterator, Mapping

from app.core.formats.decoding import placed
from app.core.formats.object_keys import repair_key
from app.core.formats.step_message import StepLog, decode_step
from app.errors import StepMessageInvalid


class Replacements:
    """Offset -> the message that every reader takes in place of the log's message at that offset.

    Args:
        messages: the full step messages; empty if nothing of the partition was damaged.
        log: the partition of `rows`; None only without messages.

    Raises:
        StepMessageInvalid: one of the messages is no step of this log.
        NewerFormat: one is a step of a newer version.
    """

    def __init__(self, messages: Mapping[int, bytes] | None = None, log: StepLog | None = None) -> None:
        self._messages = dict(sorted((messages or {}).items()))
        self._predecessors: set[int] = set()
        for offset, message in self._messages.items():
            key = "repair" if log is None else repair_key(log.epoch, log.partition, offset)
            try:
                with placed(key):
                    self._predecessors.add(decode_step(message, log).predecessor)
            except StepMessageInvalid as exc:
                raise StepMessageInvalid(f"{key}: {exc}") from exc

    def __len__(self) -> int:
        """How many messages are replaced."""
        return len(self._messages)

    def at(self, offset: int, message: bytes | None) -> bytes | None:
        """The message that counts at `offset`, where the log has `message`."""
        return self._messages.get(offset, message)

    def between(self, after: int, last: int) -> Iterator[tuple[int, bytes]]:
        """Every (offset, message) with after < offset <= last, in order."""
        return ((offset, message) for offset, message in self._messages.items() if after < offset <= last)

    def ends_run(self, offset: int) -> bool:
        """Whether the message at `offset` is replaced and a step of the log follows it.

        The replacements of several damaged steps in a row share their lines out differently than the lost ones did. Behind
        the last of them all lines are out in both histories, so a reader that took the lost steps may go on there.
        """
        return offset in self._messages and offset not in self._predecessors
