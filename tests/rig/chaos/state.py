"""Damage to the RocksDB directory of a worker that is down."""

import random
import shutil
from pathlib import Path

from app.errors import LocalStackError


def is_there(folder: Path) -> bool:
    """Whether there is a database to damage."""
    return any(_matters(path) for path in folder.rglob("*"))


def delete(folder: Path) -> str:
    """Remove everything. Returns: the damage, in words."""
    files = sum(path.is_file() for path in folder.rglob("*"))
    shutil.rmtree(folder, ignore_errors=False)
    return f"{files} files deleted"


def truncate(folder: Path, chance: int) -> str:
    """Cut one important file in half, like a disk that lost its cache. Returns: the file."""
    files = sorted(path for path in folder.rglob("*") if _matters(path) and path.stat().st_size > 1)
    if not files:
        raise LocalStackError(f"{folder} holds nothing to truncate")
    victim = random.Random(chance).choice(files)
    size = victim.stat().st_size
    with victim.open("r+b") as file:
        file.truncate(size // 2)
    return f"{victim.relative_to(folder)} cut from {size} to {size // 2} bytes"


def copy(folder: Path, aside: Path) -> None:
    """Copy the directory as it is now, over an earlier copy."""
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(folder, aside)


def roll_back(folder: Path, aside: Path) -> str:
    """Exchange the directory and its earlier copy. Returns: the damage, in words."""
    newer = aside.with_name(aside.name + ".newer")
    shutil.rmtree(newer, ignore_errors=True)
    folder.rename(newer)
    aside.rename(folder)
    newer.rename(aside)
    return "an earlier copy is back"


def _matters(path: Path) -> bool:
    """Whether a database needs the file: tables, write-ahead logs, and the manifest of valid tables."""
    return path.suffix in {".sst", ".log"} or path.name == "CURRENT" or path.name.startswith("MANIFEST-")
