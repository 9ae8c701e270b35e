"""The life of a shard, and what one bridge worker may say of it (rules T2 to T5).

    waiting --parents finished--> ready --> reading --read to the end--> drained --END everywhere--> finished
       '------------------------------'-------'-- Kinesis no longer lists it --> gone --END everywhere--'

Why stream time cannot pass a record in a shard that nobody has listed yet. Children receive records only after their parent
closed. Stream time is the minimum over the listed, unfinished shards, so the parent P holds it until its END, and then:

1. P's mark never passes the moment P closed. The arrival time of a record of P lies before that moment. The time of an
   empty answer may lie after it: such a mark counts only up to the last time we asked for the list and found P open.
2. P's END is sent only when a tick made from a list that shows P closed, hence with P's children in it, has been
   acknowledged by every partition: in every partition's log the children stand before the END of their parent.
3. A child starts with its parents' last mark. So it holds stream time at or below the moment of its own first record.

A worker whose list fails keeps the last one: it advances by records only, ends nothing and starts nothing new.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from app.core.formats.block import WatermarkMessage
from app.core.formats.checkpoint import Checkpoint, further, home_of, order_of
from app.errors import IllegalMove


class Phase(StrEnum):
    """Where a shard is in its life, as its owner sees it."""

    WAITING = "waiting"
    """Listed; a parent is not finished."""
    READY = "ready"
    """May be pumped now."""
    READING = "reading"
    DRAINED = "drained"
    """Read to its end; its END is not in every partition yet."""
    GONE = "gone"
    """Kinesis no longer lists it, and it had not been read to its end."""
    FINISHED = "finished"
    """Every partition has its END; it never reopens."""


MOVES: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.WAITING: frozenset({Phase.READY, Phase.DRAINED, Phase.GONE, Phase.FINISHED}),
    Phase.READY: frozenset({Phase.READING, Phase.DRAINED, Phase.GONE, Phase.FINISHED}),
    Phase.READING: frozenset({Phase.READY, Phase.DRAINED, Phase.GONE, Phase.FINISHED}),
    Phase.DRAINED: frozenset({Phase.FINISHED}),
    Phase.GONE: frozenset({Phase.FINISHED}),
    Phase.FINISHED: frozenset(),
}
"""Every legal move. DRAINED and FINISHED are reached from anywhere: the former owner's last word may arrive late."""


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
    """Of the answer's last record; None where it held none."""
    last_arrival_ms: int
    """Arrival time of that record; 0 where it held none."""
    behind_ms: int
    has_next: bool


class Ending(NamedTuple):
    """A shard whose END is due."""

    shard: str
    alarm: str | None
    """What an operator must hear, where the shard was not read to its end."""


class _Life:
    """What the owner of a shard knows of it."""

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
        """The mark before slack: never goes back (rule T3)."""
        self.watermark_ms = max(self.watermark_ms, min(self.quiet_ms, self.open_at_ms))
        return self.watermark_ms


class ShardBook:
    """Everything one bridge worker knows of the stream's shards between two rebalances; it decides and does nothing.

    Feed it checkpoints (`learn`), lists (`survey`) and answers (`answered`); ask what may start, what a tick says, whose END
    is due. Made anew for each assignment of partitions.
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

    # --- what it is told

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
            # a former owner died while it told everybody; whether all have heard it nobody knows, so all are told again
            self._move(shard, Phase.DRAINED)

    def survey(self, listing: Mapping[str, Listed], asked_at_ms: int) -> None:
        """Take the stream's list of shards, asked for at `asked_at_ms`.

        An empty list is no list: a stream has shards, and believing it would end them all.
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
        """The shard's pump runs now."""
        self._move(shard, Phase.READING)

    def stopped(self, shard: str) -> None:
        """The shard's pump stopped before the shard's end."""
        if self._lives[shard].phase is Phase.READING:
            self._move(shard, Phase.READY)

    def answered(self, shard: str, answer: ShardAnswer) -> None:
        """Take an answer whose records are all acknowledged; decides whether the shard is read to its end (rule T2).

        The end is a missing next iterator, the ending sequence number, or, for a shard that was known to be closed before
        the request was sent, an empty answer that is not behind: nothing comes to a closed shard. (A stream whose closed
        shards keep handing out iterators, and whose last record is not the ending sequence number, ends only so.)
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
        """The last tick has been acknowledged by every partition."""
        self._published = self._listing

    def ended(self, shard: str) -> Checkpoint:
        """The shard's END has been acknowledged by every partition: the checkpoint that says so (rule T5).

        The former owner's word that it is finished may have come first; that changes nothing.
        """
        life = self._lives[shard]
        if life.phase is not Phase.FINISHED:
            self._move(shard, Phase.FINISHED)
        return Checkpoint(shard, life.sequence, life.claim(), finished=True, announced=True)

    # --- what it says

    def owns(self, shard: str) -> bool:
        """Whether this worker pumps `shard` when its time has come."""
        return home_of(shard, self._partitions) in self._owned

    def phase(self, shard: str) -> Phase | None:
        """Where an own shard is; None for one of somebody else or unknown."""
        life = self._lives.get(shard)
        return None if life is None else life.phase

    def known_closed(self, shard: str) -> bool:
        """Whether a list has shown the own shard closed."""
        return self._lives[shard].closed is not None

    def sequence(self, shard: str) -> str | None:
        """Where the pump of an own shard goes on: behind this sequence number, at the oldest record for None."""
        return self._lives[shard].sequence

    def unrecorded(self) -> list[str]:
        """Listed shards that the topic does not know: each is recorded before a tick names it.

        So the owner, whoever it will be, finds every shard that ever held back stream time, and can END it even where
        Kinesis forgot it before anybody read it.
        """
        return sorted(shard for shard in self._listing if shard not in self._known)

    def startable(self) -> list[str]:
        """Own shards that may be pumped now, in order of their ids."""
        return sorted(shard for shard, life in self._lives.items() if life.phase is Phase.READY and shard in self._listing)

    def reading(self) -> list[str]:
        """Own shards that are being pumped."""
        return sorted(shard for shard, life in self._lives.items() if life.phase is Phase.READING)

    def due_checkpoints(self) -> list[Checkpoint]:
        """A checkpoint for each own unfinished shard that moved since the last one on the topic."""
        return [
            Checkpoint(shard, life.sequence, life.claim())
            for shard, life in sorted(self._lives.items())
            if life.phase is not Phase.FINISHED and order_of(life.sequence) > order_of(life.checkpoint.sequence)
        ]

    def tick(self) -> WatermarkMessage | None:
        """Marks of the own unfinished shards, and every listed shard, finished or not (rules T3, T4).

        None before the first list: nothing to say yet. A drained or gone shard's mark stays as it is until its END.
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
        """Own shards whose END is due: the tick that lists their children is in every partition."""
        out = []
        for shard, life in sorted(self._lives.items()):
            listed = self._published.get(shard)
            if life.phase is Phase.DRAINED and self._published and (listed is None or listed.ending_sequence is not None):
                out.append(Ending(shard, None))
            elif life.phase is Phase.GONE and self._published and listed is None:
                out.append(Ending(shard, "shard expired before it was read to its end"))
        return out

    def _parents_finished(self, shard: str) -> bool:
        """Whether every parent is finished, or one that Kinesis no longer lists (rule T2)."""
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
