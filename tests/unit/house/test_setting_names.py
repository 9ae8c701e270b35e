"""Every `INSTREAM_` name in the tree has its declaration: there is no other place that reads one."""

import re
from pathlib import Path

from app.local.stack.settings import LocalStackSettings
from app.settings import KNOWN_NAMES, LOCAL_STACK_NAMES, Settings

ROOT = Path(__file__).parents[3]
FOLDERS = ("app", "agents", "tables", "compose", ".ci", "tests/rig", "tests/worlds", "tests/e2e", "tests/faults")
NAME = re.compile(r"INSTREAM_([A-Z0-9_]*[A-Z0-9])")


def files() -> list[Path]:
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    return [path for path in [*inside, ROOT / "Makefile", ROOT / "README.md"] if path.is_file()]


def test_every_name_that_is_used_is_declared() -> None:
    used = {(path.name, name) for path in files() for name in NAME.findall(path.read_text())}
    assert len({name for _, name in used}) > 30
    assert {(path, name) for path, name in used if name.lower() not in KNOWN_NAMES} == set()


def test_every_known_name_is_declared_once_as_a_field() -> None:
    assert Settings.model_fields.keys() | LocalStackSettings.model_fields.keys() == KNOWN_NAMES
    shared = Settings.model_fields.keys() & LocalStackSettings.model_fields.keys()
    assert shared == {"home", "collector_port"}
    assert LocalStackSettings.model_fields.keys() - shared == LOCAL_STACK_NAMES


def test_nothing_reads_a_setting_past_its_class() -> None:
    reads = re.compile(r"""(environ(\.get|\.pop|\.setdefault)?|getenv)\s*[\[(]\s*f?["']INSTREAM_""")
    product = [path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] != "tests"]
    assert [path.name for path in product if reads.search(path.read_text())] == []
