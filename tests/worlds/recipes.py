"""The recipes of .github/CONTRIBUTING.md, applied to a copy of the tree: the next version of the project, for tests."""

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / ".github" / "CONTRIBUTING.md"
COPIED = (
    "app", "agents", "tables", "tests", "compose", ".github", "pyproject.toml", "constraints.txt", "Makefile", "README.md",
    "CHANGELOG.md",
)  # fmt: skip
COLUMN, FIELD, FLOW, BOT_RULE = "Add a column", "Add a field", "Add a flow", "Add a bot rule"


class Change(NamedTuple):
    """One step of a recipe: some lines of a file become others."""

    file: str
    before: str
    after: str

    def apply(self, tree: Path) -> None:
        """Change the file.

        Raises:
            ValueError: its lines are not there exactly once.
        """
        path = tree / self.file
        text = path.read_text()
        if (count := text.count(self.before)) != 1:
            raise ValueError(f"{self.file} has these lines {count} times, not once:\n{self.before}")
        path.write_text(text.replace(self.before, self.after))


def recipe(title: str) -> list[Change]:
    """The changes of a recipe, in order."""
    section = re.search(rf"^### {title}\n(.*?)(?=^##)", GUIDE.read_text(), flags=re.MULTILINE | re.DOTALL)
    if section is None:
        raise ValueError(f"{GUIDE} has no recipe {title!r}")
    changes, file = [], ""
    for found in re.finditer(r"^ *`([\w/.]+)`$|^( *)```diff\n(.*?)^ *```$", section[1], flags=re.MULTILINE | re.DOTALL):
        if found[1]:
            file = found[1]
        else:
            lines = _indented(found[3], len(found[2])).splitlines(keepends=True)
            before = "".join(line[1:] or "\n" for line in lines if line[:1] != "+")
            after = "".join(line[1:] or "\n" for line in lines if line[:1] != "-")
            changes.append(Change(file, before, after))
    return changes


def _indented(block: str, width: int) -> str:
    """A code block without the indentation of its list; the first column of a line shows its change."""
    return "".join(line[width:] if line.strip() else " \n" for line in block.splitlines(keepends=True))


def share_kernels() -> None:
    """Let copies of the tree, in processes that this one starts, find the compiled kernels of this tree."""
    os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / "app" / "kernels" / "__pycache__"))


def next_version(folder: Path, *titles: str) -> Path:
    """A copy of the tree in `folder` with these recipes applied."""
    share_kernels()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, folder / name)
    for title in titles:
        for change in recipe(title):
            change.apply(folder)
    return folder
