"""What a planted bug is."""

import ast
from pathlib import Path
from typing import NamedTuple

TREE = Path(__file__).parents[2]


class Mutant(NamedTuple):
    """One bug: a small exact replacement in one file, and the fast tests that may notice it."""

    name: str
    rule: str
    """The rule of `app/core/RULES.md` that it breaks, or an invariant."""
    file: str
    old: str
    """Occurs in the file exactly once."""
    new: str
    tests: tuple[str, ...]
    """Tests that are about the place, fewer than a minute's; the simulation runs besides."""
    alone: bool = False
    """Whether nothing but the simulation is expected to notice it."""

    def applied(self, tree: Path = TREE) -> str:
        """The file with the bug.

        Raises:
            ValueError: the text that is to be replaced is not there exactly once, or the result is no Python.
        """
        text = (tree / self.file).read_text()
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"mutant {self.name!r}: its text occurs {count} times in {self.file}, not once")
        broken = text.replace(self.old, self.new)
        try:
            ast.parse(broken)
        except SyntaxError as exc:
            raise ValueError(f"mutant {self.name!r} makes {self.file} no Python: {exc}") from exc
        return broken
