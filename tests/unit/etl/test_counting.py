"""Rule E2 as a table, and where the history of a trimmed log begins (rule E5)."""

import pytest

from app.core.formats.step_history import Accepted, BaseSearch, Candidate, StepVerdict, accepted_before
from app.core.formats.step_message import NO_PREDECESSOR


@pytest.mark.parametrize(
    ("number", "predecessor", "verdict"),
    [
        (8, 40, StepVerdict.ACCEPT),
        (8, 39, StepVerdict.IGNORE),  # a zombie that counted other messages
        (8, NO_PREDECESSOR, StepVerdict.IGNORE),
        (7, 40, StepVerdict.IGNORE),  # a retry of what counted already
        (1, NO_PREDECESSOR, StepVerdict.IGNORE),
        (9, 40, StepVerdict.GAP),
        (9, 41, StepVerdict.GAP),
    ],
)
def test_after_step_7_at_offset_40(number: int, predecessor: int, verdict: StepVerdict) -> None:
    assert Accepted(7, 40).judge(number, predecessor) is verdict


@pytest.mark.parametrize(
    ("number", "predecessor", "verdict"),
    [
        (1, NO_PREDECESSOR, StepVerdict.ACCEPT),
        (1, 0, StepVerdict.IGNORE),
        (0, -1, StepVerdict.IGNORE),
        (2, 0, StepVerdict.GAP),
    ],
)
def test_before_the_first_step(number: int, predecessor: int, verdict: StepVerdict) -> None:
    assert Accepted().judge(number, predecessor) is verdict


def test_a_counted_message_moves_the_position_to_itself() -> None:
    assert Accepted(7, 40).advance(44) == Accepted(8, 44)


def message(offset: int, number: int, predecessor: int) -> Candidate:
    return Candidate(offset, number, predecessor, b"%d" % offset)


def test_the_base_is_the_first_message_that_a_later_one_names() -> None:
    search = BaseSearch()
    zombie, base, repeat, named_by = message(10, 6, 2), message(11, 6, 9), message(12, 6, 9), message(13, 7, 11)
    assert search.offer(zombie) == []
    assert search.offer(base) == []
    assert search.offer(repeat) == []
    assert search.offer(named_by) == [base, repeat, named_by]


def test_naming_an_offset_with_the_wrong_number_is_no_proof() -> None:
    search = BaseSearch()
    search.offer(message(10, 6, 2))
    assert search.offer(message(11, 9, 10)) == []


def test_the_base_counts_for_who_stands_before_it() -> None:
    base = message(11, 6, 9)
    assert accepted_before(base).judge(base.number, base.predecessor) is StepVerdict.ACCEPT
    assert accepted_before(base).advance(base.offset) == Accepted(6, 11)
