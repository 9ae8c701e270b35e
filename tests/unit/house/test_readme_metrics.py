"""The README's metrics are those that the code exports."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
CODE = [file for folder in ("app", "agents", "tables") for file in (ROOT / folder).rglob("*.py")]


def told() -> set[str]:
    section = (ROOT / "README.md").read_text().split("\n## Metrics\n")[1].split("\n## ")[0]
    return set(re.findall(r"`(instream_[a-z_]+)`", section))


def test_every_metric_of_the_readme_is_exported() -> None:
    exported = {name for file in CODE for name in re.findall(r'"(instream_[a-z_]+)"', file.read_text())}
    assert len(told()) >= 10
    assert told() <= exported, "a name of the README is in no file"
