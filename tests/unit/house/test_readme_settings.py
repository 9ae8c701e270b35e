"""The README's tables of settings and memory: every name is a setting, every default is the real one."""

import re
from pathlib import Path

import pytest

from app.local.stack.environment import LOCAL_VALUES, SERVICES
from app.local.stack.settings import LocalStackSettings
from app.settings import KNOWN_NAMES, MIB, Settings

README = (Path(__file__).parents[3] / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows() -> list[tuple[list[str], str]]:
    """The names and the defaults of each row of the table."""
    found = re.findall(r"^\| (`[^|]+`) \|([^|]*)\|", section("Settings"), flags=re.MULTILINE)
    return [(re.findall(r"`([A-Z_]+)`", names), defaults.strip()) for names, defaults in found]


def default_of(name: str) -> object:
    field = (Settings.model_fields | LocalStackSettings.model_fields)[name.lower()]
    usual = {service.variable: service.usual for service in SERVICES}
    return usual.get(f"INSTREAM_{name}") if field.default is None else field.default


def read_default(text: str) -> tuple[float | str, str | None]:
    """A default as the table writes it, and what the local stack has in its place."""
    match = re.fullmatch(r"`?([^`(]+?)`?(?: \(local (.+)\))?", text)
    assert match, text
    number = re.fullmatch(r"([\d.]+)( MiB)?", match[1])
    value = (
        float(number[1]) * (MIB if number[2] else 1)
        if number
        else {"true": True, "false": False, "on": True}.get(match[1], match[1])
    )
    return value, match[2]


def test_the_table_is_read_whole() -> None:
    lines = [line for line in section("Settings").splitlines() if line.startswith("|")]
    assert len(rows()) == len(lines) - 2 > 10  # less the head and the rule below it
    assert all(names for names, _ in rows())


def test_every_setting_that_the_readme_names_exists() -> None:
    names = {name for row, _ in rows() for name in row} | set(re.findall(r"INSTREAM_([A-Z_]*[A-Z])", README))
    names |= set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", section("Settings") + section("Memory")))
    assert len(names) > 25
    assert {name.lower() for name in names} <= KNOWN_NAMES


@pytest.mark.parametrize(("names", "defaults"), [row for row in rows() if row[1]], ids=lambda value: str(value)[:30])
def test_every_default_of_the_table_is_the_real_one(names: list[str], defaults: str) -> None:
    told = [read_default(text) for text in defaults.split(", ")]
    assert len(told) == len(names)
    for name, (value, local) in zip(names, told, strict=True):
        real = default_of(name)
        assert value == (real if isinstance(real, int | float) else str(real)), name
        assert local == LOCAL_VALUES.get(f"INSTREAM_{name}"), name


def test_a_row_without_defaults_is_of_settings_without_any() -> None:
    names = [name for names, defaults in rows() if not defaults for name in names]
    assert "WRITE_KEYS" in names
    assert [name for name in names if default_of(name)] == []


def test_write_keys_of_the_local_stack_are_those_of_the_table() -> None:
    assert f"locally `{LOCAL_VALUES['INSTREAM_WRITE_KEYS']}`" in section("Settings")


def test_sizes_in_the_table_of_memory_are_the_defaults() -> None:
    told = re.findall(r"`([A-Z_]+)` \((\d+) MiB\)", section("Memory"))
    assert len(told) >= 3
    assert {name: int(size) * MIB for name, size in told} == {name: default_of(name) for name, _ in told}
