"""The two code trees of a drill."""

import compileall
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Final

import msgspec

from app.errors import LocalStackError
from tests.worlds.recipes import COLUMN, FIELD, FLOW, ROOT, next_version

KAFKA_JARS: Final = "INSTREAM_KAFKA_JARS"


class Versions(msgspec.Struct, frozen=True):
    """From which tree to which one."""

    older: Path
    newer: Path
    words: str
    """The two, in words."""


def prepare(folder: Path, revision: str | None, *, is_identical: bool) -> Versions:
    """Make the trees in `folder`: from `revision` to this tree; without one, from this tree to the next or a copy.

    This tree takes part as a copy, so that it may be edited while the drill runs.

    Raises:
        LocalStackError: git does not know the revision.
    """
    older, newer = folder / "older", folder / "newer"
    if revision:
        versions = Versions(archive(revision, older), next_version(newer), f"revision {revision} -> this tree")
    elif is_identical:
        versions = Versions(next_version(older), next_version(newer), "this tree -> the same")
    else:
        words = "this tree -> its next version: more columns, a field, an event type, a flow"
        versions = Versions(next_version(older), next_version(newer, COLUMN, FIELD, FLOW), words)
    for tree in (older, newer):  # as an installed package is: no process pays for the compilation at its start
        for package in ("app", "agents", "tables"):
            compileall.compile_dir(tree / package, quiet=2)
    return versions


def archive(revision: str, folder: Path) -> Path:
    """The code of a revision, in `folder`.

    Raises:
        LocalStackError: git does not know the revision.
    """
    folder.mkdir(parents=True)
    packed = folder / "tree.tar"
    done = subprocess.run(
        ["git", "archive", "--output", packed, revision], cwd=ROOT, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        raise LocalStackError(f"git archive {revision}: {done.stderr.strip()}")
    with tarfile.open(packed) as content:
        content.extractall(folder, filter="data")
    packed.unlink()
    return folder


def environment_of(tree: Path) -> dict[str, str]:
    """The environment in which this .venv runs the code of `tree`, with Kafka's jars of this checkout."""
    return {KAFKA_JARS: str(ROOT / ".kafka"), **os.environ, "PYTHONPATH": str(tree)}
