"""Dead letters: messages of topic `blocks` that nobody can read, set aside with their reason; they stop nobody (rule E8).

What is one is decided by its bytes alone, so every owner decides alike: no envelope and no control message, a block of
another partition, or a block whose frame cannot be opened or does not hold the lines that its header states. A block that
the state knows is a replay whatever its frame is like, and one older than the dedup window is refused: those are never
opened.

A dead letter has no ledger entries and nothing of it is remembered, so its lines stay missing, the audit sends the batch
again, and that copy is taken if it can be read. The step says which messages it set aside; that is what counts. The copies
on topic `dead-letters` are for people: after a crash one may lie there twice, or once more than the step says, and is known
by its partition and offset.

Versions (rule E10): a letter's head names its version. A field that a reader does not know is ignored: heads are for people,
and nothing is made of them.

A partition where too many messages are dead letters is a defect of ours or somebody's attack: its tally, which travels in
`app.core.etl.meta.EtlMeta`, then stops the worker, every time it starts, until an operator has looked.
"""

from typing import Final, NamedTuple

import msgspec

from app.core.formats.decoding import NO_MESSAGE, read_versioned
from app.core.formats.step_message import DeadLetter
from app.errors import FormatInvalid

LETTER_VERSION: Final = 1
REASON_CHARACTERS: Final = 250
MAX_LETTER_BYTES: Final = 1024 * 1024
"""A block is half of that; what a stranger wrote may be longer, and is cut."""
REMEMBERED: Final = 1000
"""About so many messages count for the share of dead letters: then old ones weigh half."""


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """How many blocks a partition has met of late, and how many of them were dead letters at their first attempt."""

    blocks: int = 0
    dead: int = 0

    def after(self, *, dead: bool) -> "Tally":
        """The tally after one more message."""
        blocks, letters = self.blocks + 1, self.dead + dead
        return Tally(blocks, letters) if blocks < REMEMBERED else Tally(blocks // 2, letters // 2)


class DeadLetterLimit(NamedTuple):
    """How many dead letters are too many."""

    share: float = 0.05
    """... of the blocks that were met of late; at 1 there is no limit."""
    least: int = 10
    """... and never fewer than this many."""

    def is_exceeded(self, tally: Tally) -> bool:
        """Whether the worker must stop."""
        return tally.dead >= self.least and tally.dead > self.share * tally.blocks


class LetterHead(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a message on topic `dead-letters`: JSON, then LF, then the message as it was."""

    version: int = LETTER_VERSION
    reason: str
    epoch: int
    partition: int
    offset: int
    """Where it lies on topic `blocks-e<epoch>`."""
    appended_at_ms: int
    """When the broker took it there."""
    batch_id: str | None = None
    """None where it is no envelope."""
    block: int | None = None
    attempt: int | None = None
    bytes: int
    """Its length; what follows the head is cut at 1 MiB."""


class Letter(NamedTuple):
    """A message on topic `dead-letters`."""

    head: LetterHead
    body: bytes


def encode_letter(head: LetterHead, body: bytes) -> bytes:
    """The Kafka message of a dead letter."""
    return msgspec.json.encode(head) + b"\n" + body[:MAX_LETTER_BYTES]


_head_decoder: Final = msgspec.json.Decoder(LetterHead)


def decode_letter(message: bytes | None) -> Letter:
    """The dead letter in a message.

    Raises:
        FormatInvalid: it is none.
        NewerFormat: it is one of a newer version.
    """
    if message is None:
        raise FormatInvalid(f"dead letter: {NO_MESSAGE}")
    first, newline, body = message.partition(b"\n")
    head = read_versioned(_head_decoder, first, "dead letter", LETTER_VERSION)
    if not newline:
        raise FormatInvalid("not a dead letter: nothing follows its head")
    return Letter(head, body)


def head_of(dead: DeadLetter, epoch: int, partition: int, appended_at_ms: int, length: int) -> LetterHead:
    """The head of the letter for a message that a step set aside."""
    return LetterHead(
        reason=dead.reason, epoch=epoch, partition=partition, offset=dead.offset, appended_at_ms=appended_at_ms,
        batch_id=dead.batch_id, block=dead.block, attempt=dead.attempt, bytes=length,
    )  # fmt: skip
