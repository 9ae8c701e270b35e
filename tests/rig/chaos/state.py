"""Damage to the RocksDB directory of a worker that is down."""

import random
import shutil
from pathlib import Path

from app.errors import LocalStackError


def is_there(folder: Path) -> bool:
    """Whether there is a database to damage."""
    return any(_matters(path) for path in folder.rglob("*"))


def delete(folder: Path) -> str:
    """Remove everything. Returns: what was done, in words."""
    files = sum(path.is_file() for path in folder.rglob("*"))
    shutil.rmtree(folder, ignore_errors=False)
    return f"{files} files deleted"


def truncate(folder: Path, chance: int) -> str:
    """Cut one file that matters in half, as a disk does that lost its cache. Returns: which."""
    files = sorted(path for path in folder.rglob("*") if _matters(path) and path.stat().st_size > 1)
    if not files:
        raise LocalStackError(f"{folder} holds nothing to truncate")
    victim = random.Random(chance).choice(files)
    size = victim.stat().st_size
    with victim.open("r+b") as file:
        file.truncate(size // 2)
    return f"{victim.relative_to(folder)} cut from {size} to {size // 2} bytes"


def copy(folder: Path, aside: Path) -> None:
    """Keep the directory as it is now, in place of an earlier copy."""
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(folder, aside)


def roll_back(folder: Path, aside: Path) -> str:
    """Put an earlier copy in the directory's place, which becomes the next copy. Returns: what was done, in words."""
    newer = aside.with_name(aside.name + ".newer")
    shutil.rmtree(newer, ignore_errors=True)
    folder.rename(newer)
    aside.rename(folder)
    newer.rename(aside)
    return "an earlier copy is back"


def _matters(path: Path) -> bool:
    """Whether a database needs the file: tables, write-ahead logs, and what says which of them count."""
    return path.suffix in {".sst", ".log"} or path.name == "CURRENT" or path.name.startswith("MANIFEST-")
