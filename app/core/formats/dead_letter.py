"""Dead letters: unreadable messages of topic `blocks`, set aside with their reason while processing continues (rule E8).

A message's bytes alone decide whether it is one, so every owner decides alike: no envelope and no control message, a block
of another partition, or a block whose frame cannot be opened or does not hold the lines that its header states. A block that
the state knows is a replay, even if its frame is damaged, and a block older than the dedup window is refused: these frames
are never opened.

A dead letter has no ledger entries and the state does not remember it. So its lines stay missing, the audit sends the batch
again, and that copy is taken if it can be read. The step lists the messages that it set aside, and only this list counts.
The copies on topic `dead-letters` are for people: after a crash a copy may be there twice, or without a step; partition and
offset identify it.

Versions (rule E10): a letter's head names its version. A field that a reader does not know is ignored: heads are for people,
and no program decides by them.

If too many messages of a partition are dead letters, the cause is our defect or an attack. Then the partition's tally, which
travels in `app.core.etl.meta.EtlMeta`, stops the worker at every start until an operator has looked.
"""

from typing import Final, NamedTuple

import msgspec

from app.core.formats.decoding import NO_MESSAGE, read_versioned
from app.core.formats.step_message import DeadLetter
from app.errors import FormatInvalid

LETTER_VERSION: Final = 1
REASON_CHARACTERS: Final = 250
MAX_LETTER_BYTES: Final = 1024 * 1024
"""A block has at most half of that; a foreign message may be longer, and is cut."""
REMEMBERED: Final = 1000
"""The share of dead letters is over about so many messages: older ones have half the weight."""


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """The number of a partition's recent blocks, and of those that were dead letters at their first attempt."""

    blocks: int = 0
    dead: int = 0

    def after(self, *, dead: bool) -> "Tally":
        """The tally after one more message."""
        blocks, letters = self.blocks + 1, self.dead + dead
        return Tally(blocks, letters) if blocks < REMEMBERED else Tally(blocks // 2, letters // 2)


class DeadLetterLimit(NamedTuple):
    """The limit of dead letters."""

    share: float = 0.05
    """Largest share of recent blocks; 1 means no limit."""
    least: int = 10
    """The limit is never below this number."""

    def is_exceeded(self, tally: Tally) -> bool:
        """Whether the worker must stop."""
        return tally.dead >= self.least and tally.dead > self.share * tally.blocks


class LetterHead(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a message on topic `dead-letters`: JSON, then LF, then the original message."""

    version: int = LETTER_VERSION
    reason: str
    epoch: int
    partition: int
    offset: int
    """Its place on topic `blocks-e<epoch>`."""
    appended_at_ms: int
    """The broker's time of the message there."""
    batch_id: str | None = None
    """None if it is no envelope."""
    block: int | None = None
    attempt: int | None = None
    bytes: int
    """Its length; the bytes after the head are cut at 1 MiB."""


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
        FormatInvalid: the message is no dead letter.
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
