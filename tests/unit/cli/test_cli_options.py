"""What a command is given is refused in one line with exit code 2 where it makes no sense, and nothing is done."""

import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest
import structlog
import typer

import app.cli.delivery
import app.cli.main
import app.cli.sink
import tests.rig.chaos.__main__ as chaos
import tests.rig.crash_sweep.__main__ as crash_sweep
import tests.rig.outage.__main__ as outage
from app.cli.options import moment, number, whole
from app.cli.show import Exit
from app.settings import MOST_PARTITIONS

NOT_NUMBERS = ["nan", "-nan", "inf", "-inf", "1e400", "-1e400", "10^20", "abc", "", " ", "9" * 400]


class Numeric(NamedTuple):
    """An option that is a number."""

    command: str
    name: str
    kind: type
    declared: Any
    default: float | None


def types_in(hint: Any) -> Iterator[Any]:
    """A type, and those it is made of."""
    yield hint
    for part in get_args(hint):
        yield from types_in(part)


def numeric_options(command: str, function: Callable[..., Any]) -> Iterator[Numeric]:
    """The options of a command that are numbers, as it declares them."""
    parameters = inspect.signature(function).parameters
    for name, hint in get_type_hints(function, include_extras=True).items():
        kinds = {int, float} & set(types_in(hint))
        if kinds:
            default = parameters[name].default
            known = None if default is inspect.Parameter.empty else default
            yield Numeric(command, f"--{name.replace('_', '-')}", *kinds, get_args(hint)[1], known)


def all_options() -> Iterator[Numeric]:
    """Of every command there is, and of the rig's."""
    for group, each in {"": app.cli.main.app, "sink ": app.cli.sink.app, "delivery ": app.cli.delivery.app}.items():
        for info in each.registered_commands:
            assert info.callback is not None
            yield from numeric_options(group + (info.name or info.callback.__name__.replace("_", "-")), info.callback)
    for function in (chaos.chaos, outage.outage, crash_sweep.crash_sweep):
        yield from numeric_options(f"rig {function.__name__}", function)


def words_of(option: Numeric) -> str:
    return f"{option.command} {option.name}"


OPTIONS = list(all_options())


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A command sets up logging for its process; here it shares the process with other tests."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """Run the command line as the program does, and give back its one line."""
    for name in [name for name in os.environ if name.startswith("INSTREAM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("INSTREAM_HOME", str(tmp_path / "home"))

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["instream", *words])
        with pytest.raises(SystemExit) as ended:
            app.cli.main.main()
        said = capsys.readouterr()
        assert ended.value.code == Exit.USAGE, said.err
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert not (tmp_path / "home").exists()
        return said.err.removesuffix("\n")

    return run


def test_the_numeric_options_are_found() -> None:
    assert set(map(words_of, OPTIONS)) >= {
        "audit --grace", "load --events", "load --rate", "load --seed", "demo --events", "demo --rate", "wait --timeout",
        "bench --events", "bench --block-lines", "bench --state-keys", "bench --repeats", "bench --rate",
        "dead-letters --last", "sink accept-gap --partition", "rig chaos --minutes", "rig outage --rate",
        "rig crash_sweep --times",
    }  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS, ids=words_of)
def test_every_number_has_two_finite_bounds_around_its_default(option: Numeric) -> None:
    lower, upper = option.declared.min, option.declared.max
    assert -math.inf < lower < upper < math.inf
    assert option.default is None or lower <= option.default <= upper
    for value in ("nan", "inf", str(lower - 1), str(upper + 1)):
        with pytest.raises(typer.BadParameter, match="give a "):
            option.declared.parser(value)


@pytest.mark.parametrize("option", [one for one in OPTIONS if not one.command.startswith("rig")], ids=words_of)
def test_a_number_out_of_bounds_is_refused_in_one_line(option: Numeric, refused: Callable[..., str]) -> None:
    lower, upper = option.declared.min, option.declared.max
    for value in [*NOT_NUMBERS, str(lower - 1), str(upper + 1)]:
        said = refused(*option.command.split(), f"{option.name}={value}")
        shown = value[:60] + "..." if len(value) > 60 else value if value.strip() else repr(value)
        kind = "number" if option.kind is float else "whole number"
        assert said == (
            f"instream {option.command}: Invalid value for '{option.name}': {shown}: give a {kind} from {lower} to {upper} "
            f"(see `instream {option.command} --help`)"
        )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["replay", ""], "Invalid value for 'batch': '': give a text that is not empty"),
        (["replay", "a", " "], "Invalid value for 'batch': ' ': give a text that is not empty"),
        (["replay"], "Invalid value: name batches, or say --all, or a time range by --since and --until"),
        (["replay", "a", "--all"], "Invalid value: name batches, or say --all, or a time range by --since and --until"),
        (
            ["replay", "a", "--until", "2026"],
            "Invalid value for '--until': 2026: give a moment in UTC as 2026-11-28, 2026-11-28T03 or 2026-11-28T03:15:00",
        ),
        (["dead-letters", "--save", ""], "Invalid value for '--save': '': give a text that is not empty"),
        (["delivery", "release", ""], "Invalid value for 'txn_id': '': give a text that is not empty"),
        (["sink", "accept-gap", "--partition", "0", "--reason", " "], "Invalid value for '--reason': ' ': give a text"),
        (
            ["sink", "accept-gap", "--partition", "40", "--reason", "x"],
            "Invalid value for --partition: there are partitions 0 to 31",
        ),
        (["repair-log", "--partition", "40"], "Invalid value for --partition: there are partitions 0 to 31"),
        (["bench", ""], "Invalid value: '' is no stage; there are etl-core, "),
        (["bench", "fly"], "Invalid value: fly is no stage; there are etl-core, "),
        (["fly"], "No such command 'fly'."),
        (["load", "--fly"], "No such option: --fly"),
        (["up", "now"], "Got unexpected extra argument"),
        (["delivery", "release"], "Missing argument 'txn_id'."),
    ],
)
def test_a_wrong_use_is_one_line_with_the_help_named(words: list[str], reason: str, refused: Callable[..., str]) -> None:
    said = refused(*words)
    command = said.partition(": ")[0]
    assert " ".join(["instream", *words]).startswith(command)
    assert said.startswith(f"{command}: {reason}")
    assert said.endswith(f"(see `{command} --help`)")


@pytest.mark.parametrize("words", [[], ["sink"], ["delivery"]])
def test_without_a_command_the_help_is_shown(words: list[str], monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["instream", *words])
    with pytest.raises(SystemExit) as ended:
        app.cli.main.main()
    said = capsys.readouterr()
    assert ended.value.code == Exit.USAGE
    assert "Commands" in said.out
    assert said.err == ""


@pytest.mark.parametrize("words", [["--help"], ["load", "--help"], ["sink", "accept-gap", "--help"]])
def test_help_is_exit_code_0(words: list[str], monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["instream", *words])
    with pytest.raises(SystemExit) as ended:
        app.cli.main.main()
    assert not ended.value.code
    assert "Usage" in capsys.readouterr().out


def test_numbers_within_their_bounds_are_taken_as_they_are_written() -> None:
    assert whole("", 1, 10).parser(" 10 ") == 10
    assert number("", 0, 1).parser("1e-3") == 0.001
    assert number("", 0, 1).parser(1) == 1


def test_partitions_of_a_command_are_those_of_the_settings() -> None:
    declared = {option.command: option.declared for option in OPTIONS if option.name == "--partition"}
    assert declared.keys() == {"sink accept-gap", "repair-log"}
    assert {(option.min, option.max) for option in declared.values()} == {(0, MOST_PARTITIONS - 1)}


@pytest.mark.parametrize(
    ("text", "begins", "ends"),
    [
        ("2026-11-28", "2026-11-28T00:00:00+00:00", "2026-11-29T00:00:00+00:00"),
        ("2026-11-28T03", "2026-11-28T03:00:00+00:00", "2026-11-28T04:00:00+00:00"),
        ("2026-11-28 03:15", "2026-11-28T03:15:00+00:00", "2026-11-28T03:16:00+00:00"),
        ("2026-11-28T03:15:07Z", "2026-11-28T03:15:07+00:00", "2026-11-28T03:15:07+00:00"),
        ("2026-11-28T03:15:07+00:00", "2026-11-28T03:15:07+00:00", "2026-11-28T03:15:07+00:00"),
        (" 2026-11-28T03:15:07.250 ", "2026-11-28T03:15:07.250+00:00", "2026-11-28T03:15:07.250+00:00"),
    ],
)
def test_a_moment_stands_for_its_first_instant_or_the_first_one_behind_it(text: str, begins: str, ends: str) -> None:
    def ms(iso: str) -> int:
        return round(datetime.fromisoformat(iso).timestamp() * 1000)

    assert (moment("").parser(text), moment("", ends=True).parser(text)) == (ms(begins), ms(ends))


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "2026-11-28T25", "2026-11-28T03:", "28.11.2026", "2026-11-28T03+01:00"]
)
def test_what_is_no_moment_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="give a moment in UTC as 2026-11-28"):
        moment("").parser(text)
