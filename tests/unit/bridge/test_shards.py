"""The life of a shard and what a bridge worker may say of it: rules T2 to T5, one history a test."""

import pytest

from app.core.bridge.shards import MOVES, Ending, Listed, Phase, ShardAnswer, ShardBook
from app.core.formats.checkpoint import Checkpoint, home_of
from app.errors import IllegalMove

ALL = range(4)
OPEN = Listed()


def closed(at: int = 99, *parents: str) -> Listed:
    return Listed(parents, str(at))


def child_of(*parents: str) -> Listed:
    return Listed(parents)


def some(sequence: int, arrival_ms: int, *, behind_ms: int = 0, has_next: bool = True) -> ShardAnswer:
    return ShardAnswer(arrival_ms, False, str(sequence), arrival_ms, behind_ms, has_next)


def nothing(asked_at_ms: int, *, known_closed: bool = False, behind_ms: int = 0, has_next: bool = True) -> ShardAnswer:
    return ShardAnswer(asked_at_ms, known_closed, None, 0, behind_ms, has_next)


def book(slack_ms: int = 0, owned: object = ALL) -> ShardBook:
    return ShardBook(owned, len(ALL), slack_ms)  # type: ignore[arg-type]


def reading(**listing: Listed) -> ShardBook:
    """A book that pumps everything it may, its list asked for at 1000 and published."""
    b = book()
    b.survey(listing or {"a": OPEN}, 1000)
    for shard in b.startable():
        b.start(shard)
    b.published()
    return b


def watermarks(b: ShardBook) -> dict[str, int]:
    tick = b.tick()
    assert tick is not None
    return tick.watermarks


def test_nothing_is_said_before_the_first_list() -> None:
    b = book()
    assert b.tick() is None
    assert b.startable() == []
    b.survey({}, 1000)
    assert b.tick() is None


def test_a_listed_shard_without_a_mark_is_named_so_that_it_holds_time() -> None:
    tick = reading(a=OPEN, b=OPEN).tick()
    assert tick is not None
    assert tick.watermarks == {}
    assert tick.open_shards == {"a": [], "b": []}


def test_a_mark_is_the_arrival_of_the_last_record_less_the_slack_and_never_goes_back() -> None:
    b = book(slack_ms=300)
    b.survey({"a": OPEN}, 1000)
    b.start("a")
    b.answered("a", some(5, 2000))
    assert watermarks(b) == {"a": 1700}
    b.answered("a", some(6, 1990))
    assert watermarks(b) == {"a": 1700}
    b.answered("a", some(7, 2500))
    assert watermarks(b) == {"a": 2200}


def test_an_empty_answer_counts_only_as_far_as_the_list_found_the_shard_open() -> None:
    b = reading()
    b.answered("a", nothing(5000))
    assert watermarks(b) == {"a": 1000}
    b.survey({"a": OPEN}, 4000)
    assert watermarks(b) == {"a": 4000}
    b.survey({"a": OPEN}, 9000)
    assert watermarks(b) == {"a": 5000}


def test_an_empty_answer_after_the_shard_closed_moves_no_mark() -> None:
    b = reading()
    b.answered("a", some(5, 900))
    b.survey({"a": closed(), "b": child_of("a")}, 4000)
    b.answered("a", nothing(5000, behind_ms=0))
    assert watermarks(b) == {"a": 1000}


@pytest.mark.parametrize("answer", [nothing(5000, behind_ms=40), nothing(5000, has_next=False)])
def test_an_answer_that_is_behind_or_final_moves_no_mark(answer: ShardAnswer) -> None:
    b = reading()
    b.survey({"a": OPEN}, 9000)
    b.answered("a", answer)
    assert watermarks(b) == {}


@pytest.mark.parametrize(
    ("answer", "drained"),
    [
        (some(5, 900, has_next=False), True),
        (nothing(900, has_next=False), True),
        (some(98, 900), False),
        (some(99, 900), True),
        (some(100, 900), True),
        (nothing(900, known_closed=True), True),
        (nothing(900, known_closed=True, behind_ms=5), False),
        (nothing(900, known_closed=False), False),
    ],
)
def test_a_shard_ends_by_iterator_ending_sequence_or_a_dry_closed_shard(answer: ShardAnswer, drained: bool) -> None:
    b = reading()
    b.survey({"a": closed(99), "b": child_of("a")}, 2000)
    b.answered("a", answer)
    assert b.phase("a") is (Phase.DRAINED if drained else Phase.READING)


def test_sequence_numbers_are_compared_as_numbers() -> None:
    b = reading()
    b.survey({"a": closed(100)}, 2000)
    b.answered("a", some(99, 900))
    assert b.phase("a") is Phase.READING
    b.answered("a", some(101, 900))
    assert b.phase("a") is Phase.DRAINED
    assert b.sequence("a") == "101"


def test_no_end_before_a_published_list_shows_the_shard_closed_with_its_children() -> None:
    b = reading()
    b.answered("a", some(5, 900, has_next=False))
    assert b.endings() == []  # the list in every partition still shows it open: its children are in none
    b.survey({"a": closed(), "b": child_of("a")}, 2000)
    assert b.endings() == []  # known here, not yet in the partitions
    b.published()
    assert b.endings() == [Ending("a", None)]


def test_children_wait_for_every_parent_and_start_when_these_are_finished() -> None:
    b = reading(a=closed(5), b=closed(5), c=child_of("a", "b"))
    assert b.reading() == ["a", "b"]
    for shard in "ab":
        assert b.phase("c") is Phase.WAITING
        b.answered(shard, some(5, 900))
        assert b.ended(shard) == Checkpoint(shard, "5", 900, finished=True, announced=True)
        b.learn(Checkpoint(shard, "5", 900, finished=True, announced=True))
        b.survey({"a": closed(5), "b": closed(5), "c": child_of("a", "b")}, 2000)
    assert b.startable() == ["c"]
    tick = b.tick()
    assert tick is not None
    assert tick.open_shards == {"c": ["a", "b"]}
    assert tick.finished == ["a", "b"]


def test_a_parent_of_another_worker_counts_once_its_finish_was_told() -> None:
    names = [f"s{n}" for n in range(40)]
    mine = next(n for n in names if home_of(n, 4) == 0)
    theirs = next(n for n in names if home_of(n, 4) == 1)
    b = book(owned={0})
    listing = {theirs: closed(), mine: child_of(theirs)}
    b.survey(listing, 1000)
    assert b.startable() == []
    assert b.phase(theirs) is None
    b.learn(Checkpoint(theirs, "99", 0, finished=True))
    b.survey(listing, 2000)
    assert b.startable() == [mine]


def test_a_tick_names_the_unfinished_shards_of_every_worker_and_marks_only_its_own() -> None:
    names = [f"s{n}" for n in range(40)]
    mine = next(n for n in names if home_of(n, 4) == 0)
    theirs = next(n for n in names if home_of(n, 4) == 1)
    b = book(owned={0})
    b.survey({theirs: OPEN, mine: OPEN}, 1000)
    b.start(mine)
    b.answered(mine, some(5, 900))
    tick = b.tick()
    assert tick is not None
    assert tick.watermarks == {mine: 900}
    assert set(tick.open_shards) == {mine, theirs}


def test_a_parent_that_was_forgotten_before_we_began_does_not_hold_its_child() -> None:
    b = book()
    b.survey({"b": child_of("a")}, 1000)
    assert b.startable() == ["b"]


def test_a_shard_that_kinesis_forgot_is_ended_with_an_alarm() -> None:
    b = book()
    b.learn(Checkpoint("a", "7", 500))
    b.survey({"b": child_of("a")}, 1000)
    assert b.phase("a") is Phase.GONE
    assert b.endings() == []
    b.published()
    ending = b.endings()
    assert [e.shard for e in ending] == ["a"]
    assert ending[0].alarm
    assert b.ended("a") == Checkpoint("a", "7", 500, finished=True, announced=True)
    assert b.endings() == []


def test_a_failed_list_starts_and_ends_nothing() -> None:
    b = book()
    b.learn(Checkpoint("a", "7", 500))
    b.published()
    assert b.startable() == []
    assert b.endings() == []


def test_checkpoints_are_due_only_for_what_moved() -> None:
    b = reading(a=OPEN, b=OPEN)
    b.answered("a", some(5, 900))
    b.answered("b", nothing(900))
    assert b.due_checkpoints() == [Checkpoint("a", "5", 900)]
    b.learn(Checkpoint("a", "5", 900))
    assert b.due_checkpoints() == []


def test_listed_shards_are_recorded_once() -> None:
    b = reading(a=OPEN, b=OPEN)
    assert b.unrecorded() == ["a", "b"]
    b.learn(Checkpoint("a"))
    assert b.unrecorded() == ["b"]


def test_a_stopped_pump_goes_on_where_it_was_with_its_mark() -> None:
    b = reading()
    b.answered("a", some(5, 2000))
    b.stopped("a")
    assert b.startable() == ["a"]
    assert b.sequence("a") == "5"
    assert watermarks(b) == {"a": 2000}


def test_a_new_owner_goes_on_from_the_checkpoint() -> None:
    b = book()
    b.learn(Checkpoint("a", "5", 700))
    b.learn(Checkpoint("a", "3", 600))
    b.survey({"a": OPEN}, 1000)
    assert b.sequence("a") == "5"
    assert watermarks(b) == {"a": 700}


def test_the_former_owners_last_word_finishes_a_shard_in_any_phase_and_it_never_reopens() -> None:
    b = reading()
    b.learn(Checkpoint("a", "9", 900, finished=True, announced=True))
    assert b.phase("a") is Phase.FINISHED
    b.learn(Checkpoint("a", "9", 900))
    b.survey({"a": closed(9)}, 2000)
    assert b.phase("a") is Phase.FINISHED
    assert b.startable() == []
    tick = b.tick()
    assert tick is not None
    assert tick.open_shards == {}
    assert b.ended("a").finished


def test_an_illegal_move_raises_and_changes_nothing() -> None:
    b = reading(a=closed(5), c=child_of("a"))
    with pytest.raises(IllegalMove, match="shard c cannot go from waiting to reading"):
        b.start("c")
    assert b.phase("c") is Phase.WAITING


def test_every_phase_can_reach_the_end_and_only_the_end_is_final() -> None:
    assert set(MOVES) == set(Phase)
    assert [phase for phase, targets in MOVES.items() if not targets] == [Phase.FINISHED]
    assert all(Phase.FINISHED in targets for phase, targets in MOVES.items() if phase is not Phase.FINISHED)


def test_a_rumour_that_an_own_shard_is_finished_is_told_to_everybody_again() -> None:
    """Its former owner died while it told the others: some workers may never have heard, and hold back the children."""
    b = book()
    b.survey({"a": Listed(ending_sequence="7")}, 1)
    b.published()
    b.learn(Checkpoint("a", "7", 500, finished=True))
    assert b.phase("a") is Phase.DRAINED
    assert [ending.shard for ending in b.endings()] == ["a"]
    assert b.ended("a").announced
    assert b.phase("a") is Phase.FINISHED
