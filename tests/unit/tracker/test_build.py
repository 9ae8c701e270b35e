"""The scripts that are served are those that the sources make, within their budgets."""

import re

import pytest

from app.tracker import BUILT, read_script
from app.tracker.build import BUDGET_BYTES, CONSTANTS, SCRIPTS, SOURCE, build, constants, whole


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_is_served_is_a_fresh_build(name: str) -> None:
    assert read_script(name).text == build(name), "run `make tracker-build`"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_within_its_budget(name: str) -> None:
    assert len(read_script(name).zipped) <= BUDGET_BYTES[name]


def test_every_source_is_part_of_a_script() -> None:
    assert {file.name for file in SOURCE.iterdir()} == {CONSTANTS, *(file for files in SCRIPTS.values() for file in files)}
    assert {file.name for file in BUILT.iterdir()} == set(SCRIPTS)


def test_every_constant_is_used_and_none_is_left() -> None:
    sources = "".join((SOURCE / file).read_text() for files in SCRIPTS.values() for file in files)
    assert {name for name in constants() if not re.search(rf"\b{name}\b", sources)} == set()
    for script in SCRIPTS:
        assert not re.findall(rf"\b({'|'.join(constants())})\b", whole(script))


def test_a_name_that_no_constant_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tracker.build.constants", dict)
    with pytest.raises(ValueError, match="is no constant"):
        whole("t.js")
