"""The facts in the texts of a field: the lines are many, the texts are few, and each text is asked about once."""

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from app.core.etl.cells import Cells
from app.kernels.cells import Ints
from app.kernels.text_table import TextTable


class Judged(Protocol):
    """Facts that may name a bot."""

    @property
    def bot_rule(self) -> str | None:
        """The rule that names the bot, or None."""


Facts = TypeVar("Facts", bound=Judged)


class LineFacts(Generic[Facts]):
    """The texts of one field in some lines, with the facts in them."""

    def __init__(
        self, numbers: Ints, texts: Sequence[str | None], facts: Sequence[Facts], is_bot: npt.NDArray[np.bool_]
    ) -> None:
        self.numbers = numbers
        """int64[n]: for each line, the place of its text in `texts`."""
        self.texts = texts
        """Each text once; None for a field that is absent."""
        self.facts = facts
        """The facts in each of `texts`."""
        self.is_bot = is_bot
        """bool[texts]: whether the facts name a bot."""


class TextFacts(Generic[Facts]):
    """A memory of the facts in texts; for one thread at a time.

    It forgets everything at the beginning of a step when it is full, as `app.core.enrich.memo` does, so it holds at most its
    size and what one step brings. Its answers are those of `read`.

    Args:
        read: gives the facts in a text.
        most_texts: how many texts it remembers.
        most_bytes: how many bytes of them.
    """

    def __init__(self, read: Callable[[str | None], Facts], most_texts: int, most_bytes: int) -> None:
        self._read = read
        self._table = TextTable(most_texts, most_bytes)
        self._forget()

    def of(self, cells: Cells, field: int) -> LineFacts[Facts]:
        """The facts in the text of `field` of each line. They stay as they are while later steps are read."""
        if self._table.is_full:
            self._forget()
        numbers = self._table.numbers(cells.arena, cells.rec, cells.present, field)
        if len(self._facts) < self._table.known:
            self._learn()
        return LineFacts(numbers, self._texts, self._facts, self._is_bot)

    def _forget(self) -> None:
        self._table.forget()
        self._texts: list[str | None] = []
        self._facts: list[Facts] = []
        self._is_bot = np.empty(0, np.bool_)
        self._learn()

    def _learn(self) -> None:
        """Read the texts that the table has and the facts lack."""
        for number in range(len(self._facts), self._table.known):
            text = self._table.text(number).decode() if number else None
            self._facts.append(self._read(text))
            self._texts.append(text)
        new = [facts.bot_rule is not None for facts in self._facts[len(self._is_bot) :]]
        self._is_bot = np.concatenate([self._is_bot, np.array(new, np.bool_)])
