"""A memo answers as its function does, asks it once, and holds no more than it may."""

import pytest

from app.core.enrich.memo import Memo

SIZE = 3


def test_it_asks_once_and_forgets_when_it_is_full() -> None:
    asked: list[str] = []

    def shout(text: str) -> str:
        asked.append(text)
        return text.upper()

    memo = Memo(shout, SIZE)
    assert [memo[text] for text in "abcabc"] == list("ABCABC")
    assert asked == ["a", "b", "c"]
    assert memo["d"] == "D"
    assert len(memo) == 1, "it holds more than it may, or nothing"
    assert memo["a"] == "A"
    assert asked == ["a", "b", "c", "d", "a"]


def test_what_fails_is_asked_again() -> None:
    answers = iter(["", "late"])
    memo = Memo(lambda _: next(answers) or _fail(), SIZE)
    with pytest.raises(LookupError):
        memo["a"]
    assert memo["a"] == "late"


def _fail() -> str:
    raise LookupError
