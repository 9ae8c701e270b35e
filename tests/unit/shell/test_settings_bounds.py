"""Every number among the settings has a lowest and a highest value, and nothing outside of them is taken."""

import math
from typing import get_args

import pytest
from pydantic.fields import FieldInfo

from app.errors import ConfigurationError
from app.local.stack.settings import LocalStackSettings, read_local_settings
from app.settings import Settings, read_settings
from app.variables import Variables, bounds_of

READERS = {Settings: read_settings, LocalStackSettings: read_local_settings}


def types_of(field: FieldInfo) -> set[object]:
    return {field.annotation, *get_args(field.annotation)}


NUMBERS = [
    (settings, name, field)
    for settings in READERS
    for name, field in settings.model_fields.items()
    if types_of(field) & {int, float}
]
EACH = pytest.mark.parametrize(("settings", "name", "field"), NUMBERS, ids=[name for _, name, _ in NUMBERS])


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.upper().startswith("INSTREAM_")]:
        monkeypatch.delenv(name)


def written(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


def test_there_are_numbers() -> None:
    assert len(NUMBERS) > 30


@EACH
def test_a_number_has_two_finite_bounds_around_its_default(settings: type[Variables], name: str, field: FieldInfo) -> None:
    bounds = bounds_of(field)
    assert bounds is not None, name
    lower, upper = bounds
    assert 0 <= lower < upper < math.inf
    assert field.default is None or lower <= field.default <= upper


@EACH
def test_a_number_out_of_bounds_is_refused_in_one_line(
    settings: type[Variables], name: str, field: FieldInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = bounds_of(field)
    assert bounds is not None
    lower, upper = bounds
    whole = "whole " if int in types_of(field) else ""
    beyond = [str(int(lower) - 1), f"{upper + 1:.0f}", "-1", "-0.5", str(10**20), "9" * 400]
    for value in ["nan", "NaN", "inf", "-inf", "Infinity", "1e400", "-1e400", "abc", "0x10", "1,5", *beyond]:
        monkeypatch.setenv(f"INSTREAM_{name.upper()}", value)
        with pytest.raises(ConfigurationError) as caught:
            READERS[settings]()
        shown = value if len(value) <= 60 else value[:60] + "..."
        remedy = f"give a {whole}number from {written(lower)} to {written(upper)}"
        assert str(caught.value) == f"settings do not fit: INSTREAM_{name.upper()}={shown}: {remedy}"


@EACH
def test_an_empty_number_is_refused(
    settings: type[Variables], name: str, field: FieldInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"INSTREAM_{name.upper()}", "")
    with pytest.raises(ConfigurationError, match=f"INSTREAM_{name.upper()}='': "):
        READERS[settings]()


FITTING = {
    "join_window_s": "0.001", "join_grace_s": "0", "join_reorder_s": "0", "dedup_window_s": "31536000",
    "replication_factor": "15", "min_insync_replicas": "1", "retention_log_days": "0",
}  # fmt: skip
"""Leave every other setting room for both of its bounds."""


@EACH
def test_both_bounds_themselves_are_taken(
    settings: type[Variables], name: str, field: FieldInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other, value in FITTING.items():
        monkeypatch.setenv(f"INSTREAM_{other.upper()}", value)
    for bound in bounds_of(field) or ():
        monkeypatch.setenv(f"INSTREAM_{name.upper()}", written(bound))
        assert getattr(READERS[settings](), name) == bound
