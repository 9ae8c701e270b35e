"""The life of a shard, and what one bridge worker may say of it (rules T2 to T5).

    waiting --parents finished--> ready --> reading --read to the end--> drained --END everywhere--> finished
       '------------------------------'-------'-- Kinesis no longer lists it --> gone --END everywhere--'

Claim: stream time cannot pass a record in a shard that no worker has listed yet. Proof: children receive records only after
their parent closed. Stream time is the minimum over the listed, unfinished shards, so the parent P holds it until P's END.

1. P's watermark never passes the moment at which P closed. The arrival time of each record of P lies before that moment.
   The time of an empty answer may lie after it. So that time counts only up to the last request whose list showed P open.
2. A worker sends P's END only after every partition has acknowledged a watermark message with P's children in it. The
   message is made from a list that shows P closed. So in every partition's log the children stand before the END of their
   parent.
3. A child starts with its parents' last watermark. So the child holds stream time at or below its own first record.

If the list of shards fails, a worker keeps the last one: it reads on, ends no shard and starts no new one.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from app.core.formats.block import WatermarkMessage
from app.core.formats.checkpoint import Checkpoint, further, home_of, order_of
from app.core.whole_table import whole_table
from app.errors import IllegalMove


class Phase(StrEnum):
    """Where a shard is in its life, as its owner sees it."""

    WAITING = "waiting"
    """Listed; a parent is not finished."""
    READY = "ready"
    """May be read now."""
    READING = "reading"
    DRAINED = "drained"
    """Read to its end; its END is not in every partition yet."""
    GONE = "gone"
    """Kinesis no longer lists it, and it had not been read to its end."""
    FINISHED = "finished"
    """Every partition has its END; it never reopens."""


MOVES: Final[Mapping[Phase, frozenset[Phase]]] = whole_table(Phase, {
    Phase.WAITING: frozenset({Phase.READY, Phase.DRAINED, Phase.GONE, Phase.FINISHED}),
    Phase.READY: frozenset({Phase.READING, Phase.DRAINED, Phase.GONE, Phase.FINISHED}),
    Phase.READING: frozenset({Phase.READY, Phase.DRAINED, Phase.GONE, Phase.FINISHED}),
    Phase.DRAINED: frozenset({Phase.FINISHED}),
    Phase.GONE: frozenset({Phase.FINISHED}),
    Phase.FINISHED: frozenset(),
})  # fmt: skip
"""Every legal move. DRAINED and FINISHED are reached from any phase: the former owner's last message may arrive late."""


class Listed(NamedTuple):
    """A shard as Kinesis lists it."""

    parents: tuple[str, ...] = ()
    ending_sequence: str | None = None
    """Set where the shard is closed."""


class ShardAnswer(NamedTuple):
    """One answer of GetRecords, all of whose records Kafka has acknowledged."""

    asked_at_ms: int
    """When the request was sent."""
    known_closed: bool
    """Whether the list already showed the shard closed when the request was sent."""
    last_sequence: str | None
    """The last record's sequence number; None for an answer without records."""
    last_arrival_ms: int
    """The last record's arrival time; 0 for an answer without records."""
    behind_ms: int
    has_next: bool


class Ending(NamedTuple):
    """A shard whose END is due."""

    shard: str
    alarm: str | None
    """A message for the operator, if the shard was not read to its end."""


class _Life:
    """The owner's knowledge of one shard."""

    __slots__ = ("checkpoint", "closed", "open_at_ms", "phase", "quiet_ms", "sequence", "watermark_ms")

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.phase = Phase.WAITING
        self.checkpoint = checkpoint  # the last one known to be on the topic
        self.sequence = checkpoint.sequence
        self.watermark_ms = checkpoint.watermark_ms
        self.quiet_ms = 0  # the last empty, up-to-date answer; claimed as far as open_at_ms only
        self.open_at_ms = 0
        self.closed: str | None = None  # the ending sequence

    def claim(self) -> int:
        """The watermark before slack; it never goes back (rule T3)."""
        self.watermark_ms = max(self.watermark_ms, min(self.quiet_ms, self.open_at_ms))
        return self.watermark_ms


class ShardBook:
    """The knowledge of one bridge worker about the stream's shards between two rebalances. It decides and acts on nothing.

    Feed it checkpoints (`learn`), lists (`survey`) and answers (`answered`). Ask it which shards may start, what the next
    watermark message says, and which ENDs are due. A new one is made for each assignment of partitions.
    """

    def __init__(self, owned: Collection[int], checkpoint_partitions: int, slack_ms: int) -> None:
        self._owned = frozenset(owned)
        self._partitions = checkpoint_partitions
        self._slack_ms = slack_ms
        self._known: dict[str, Checkpoint] = {}
        self._finished: set[str] = set()
        self._lives: dict[str, _Life] = {}
        self._listing: Mapping[str, Listed] = {}
        self._published: Mapping[str, Listed] = {}

    # --- input

    def learn(self, checkpoint: Checkpoint) -> None:
        """Take a checkpoint from the topic or the table; repeated and older ones change nothing."""
        shard = checkpoint.shard
        self._known[shard] = known = further(self._known.get(shard), checkpoint)
        if known.finished:
            self._finished.add(shard)
        life = self._lives.get(shard)
        if life is None:
            if not self.owns(shard):
                return
            self._lives[shard] = life = _Life(known)
        life.checkpoint = known
        if known.announced and life.phase is not Phase.FINISHED:
            self._move(shard, Phase.FINISHED)
        elif known.finished and Phase.DRAINED in MOVES[life.phase]:
            # a former owner died while it announced this; perhaps not every partition has it, so it is announced again
            self._move(shard, Phase.DRAINED)

    def survey(self, listing: Mapping[str, Listed], asked_at_ms: int) -> None:
        """Take the stream's list of shards, asked for at `asked_at_ms`.

        An empty list is ignored: a stream always has shards, and an empty list would end all of them.
        """
        if not listing:
            return
        self._listing = dict(listing)
        for shard, listed in listing.items():
            if not self.owns(shard):
                continue
            life = self._lives.setdefault(shard, _Life(self._known.get(shard, Checkpoint(shard))))
            if listed.ending_sequence is None:
                life.open_at_ms = max(life.open_at_ms, asked_at_ms)
            else:
                life.closed = listed.ending_sequence
        for shard, life in self._lives.items():
            if shard not in listing:
                if life.phase in (Phase.WAITING, Phase.READY, Phase.READING):
                    self._move(shard, Phase.GONE)
            elif life.phase is Phase.WAITING and self._parents_finished(shard):
                self._move(shard, Phase.READY)

    def start(self, shard: str) -> None:
        """The shard's reader runs now."""
        self._move(shard, Phase.READING)

    def stopped(self, shard: str) -> None:
        """The shard's reader stopped before the shard's end."""
        if self._lives[shard].phase is Phase.READING:
            self._move(shard, Phase.READY)

    def answered(self, shard: str, answer: ShardAnswer) -> None:
        """Take an answer whose records are all acknowledged; decides whether the shard is read to its end (rule T2).

        A shard is read to its end in three cases: the next iterator is missing; the ending sequence number was read; or the
        shard was known to be closed before the request was sent, and the answer is empty and not behind: a closed shard
        takes no more records. (Only the third case ends a closed shard that keeps handing out iterators and whose last
        record is not the ending sequence number.)
        """
        life = self._lives[shard]
        empty = answer.last_sequence is None
        if not empty:
            life.sequence = max(life.sequence, answer.last_sequence, key=order_of)
            life.watermark_ms = max(life.watermark_ms, answer.last_arrival_ms)
        elif answer.behind_ms == 0 and answer.has_next:
            life.quiet_ms = max(life.quiet_ms, answer.asked_at_ms)
        if life.phase is not Phase.READING:
            return
        at_end = life.closed is not None and life.sequence is not None and order_of(life.sequence) >= int(life.closed)
        dry = answer.known_closed and empty and answer.behind_ms == 0
        if not answer.has_next or at_end or dry:
            self._move(shard, Phase.DRAINED)

    def published(self) -> None:
        """Every partition has acknowledged the last watermark message."""
        self._published = self._listing

    def ended(self, shard: str) -> Checkpoint:
        """Every partition has acknowledged the shard's END (rule T5).

        Returns: the checkpoint that says so. The former owner's announcement may have come first; that changes nothing.
        """
        life = self._lives[shard]
        if life.phase is not Phase.FINISHED:
            self._move(shard, Phase.FINISHED)
        return Checkpoint(shard, life.sequence, life.claim(), finished=True, announced=True)

    # --- output

    def owns(self, shard: str) -> bool:
        """Whether this worker is the one that reads `shard`."""
        return home_of(shard, self._partitions) in self._owned

    def phase(self, shard: str) -> Phase | None:
        """The phase of an own shard; None for a shard of another worker, or an unknown one."""
        life = self._lives.get(shard)
        return None if life is None else life.phase

    def known_closed(self, shard: str) -> bool:
        """Whether a list has shown the own shard closed."""
        return self._lives[shard].closed is not None

    def sequence(self, shard: str) -> str | None:
        """The sequence number behind which an own shard is read on; None for its oldest record."""
        return self._lives[shard].sequence

    def unrecorded(self) -> list[str]:
        """Listed shards that topic `checkpoints` lacks: each is recorded before a watermark message names it (rule T4).

        So the next owner finds every shard that ever held back stream time. It can END such a shard even if Kinesis forgot
        the shard before any worker read it.
        """
        return sorted(shard for shard in self._listing if shard not in self._known)

    def startable(self) -> list[str]:
        """Own shards that may be read now, in order of their ids."""
        return sorted(shard for shard, life in self._lives.items() if life.phase is Phase.READY and shard in self._listing)

    def reading(self) -> list[str]:
        """Own shards that are being read."""
        return sorted(shard for shard, life in self._lives.items() if life.phase is Phase.READING)

    def due_checkpoints(self) -> list[Checkpoint]:
        """A checkpoint for each own unfinished shard that moved since the last one on the topic."""
        return [
            Checkpoint(shard, life.sequence, life.claim())
            for shard, life in sorted(self._lives.items())
            if life.phase is not Phase.FINISHED and order_of(life.sequence) > order_of(life.checkpoint.sequence)
        ]

    def tick(self) -> WatermarkMessage | None:
        """The next watermark message: watermarks of the own unfinished shards, and every listed shard (rules T3, T4).

        None before the first list. The watermark of a drained or gone shard stays as it is until the shard's END.
        """
        if not self._listing:
            return None
        watermarks = {
            shard: max(0, life.claim() - self._slack_ms)
            for shard, life in sorted(self._lives.items())
            if life.phase is not Phase.FINISHED and life.claim() > 0
        }
        unfinished = {s: list(listed.parents) for s, listed in self._listing.items() if s not in self._finished}
        return WatermarkMessage(watermarks, unfinished, sorted(shard for shard in self._listing if shard in self._finished))

    def endings(self) -> list[Ending]:
        """Own shards whose END is due: the watermark message with their children is in every partition (rule T5)."""
        out = []
        for shard, life in sorted(self._lives.items()):
            listed = self._published.get(shard)
            if life.phase is Phase.DRAINED and self._published and (listed is None or listed.ending_sequence is not None):
                out.append(Ending(shard, None))
            elif life.phase is Phase.GONE and self._published and listed is None:
                out.append(Ending(shard, "shard expired before it was read to its end"))
        return out

    def _parents_finished(self, shard: str) -> bool:
        """Whether every parent is finished, or no longer listed by Kinesis (rule T2)."""
        return all(parent in self._finished or parent not in self._listing for parent in self._listing[shard].parents)

    def _move(self, shard: str, to: Phase) -> None:
        """Move an own shard.

        Raises:
            IllegalMove: the table does not have that move; nothing changed.
        """
        life = self._lives[shard]
        if to not in MOVES[life.phase]:
            raise IllegalMove(f"shard {shard} cannot go from {life.phase} to {to}")
        life.phase = to
