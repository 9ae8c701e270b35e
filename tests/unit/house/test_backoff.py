"""The one rule of waiting after failures, and that nobody has a second one."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.backoff import Backoff

ROOT = Path(__file__).parents[3]


def test_pauses_double_up_to_the_longest() -> None:
    assert [Backoff(0.5, 5).pause_s(failures) for failures in range(1, 8)] == [0.5, 1, 2, 4, 5, 5, 5]


def test_nothing_is_waited_for_before_the_first_failure() -> None:
    assert [Backoff(1, 30).pause_s(failures) for failures in (-2, 0)] == [0, 0]


def test_a_backoff_without_a_longest_pause_doubles_on() -> None:
    assert Backoff(0.25).pause_s(11) == 256


@pytest.mark.parametrize("failures", [63, 2000, 10**9])
def test_however_often_it_failed_the_pause_is_the_longest(failures: int) -> None:
    assert Backoff(0.05, 2).pause_s(failures) == 2


def test_chance_spreads_pauses_over_their_second_half() -> None:
    backoff = Backoff(2, 30)
    for failures in range(1, 8):
        whole_s = backoff.pause_s(failures)
        assert [backoff.pause_s(failures, fraction) for fraction in (0, 0.5, 1)] == [whole_s / 2, whole_s * 0.75, whole_s]


TIME = re.compile(r"(_m?s|pause|delay)$", re.IGNORECASE)


def doublings(source: str) -> Iterator[int]:
    """The lines that double a time again and again: `t *= 2`, `t = ... t * 2 ...`, `t * 2**n`, `t << n`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.AugAssign(target=time, op=ast.Mult(), value=ast.Constant(value=2)):
                found = _is_time(time)
            case ast.Assign(targets=[time], value=value):
                doubled = f"{ast.unparse(time)} * 2"
                found = _is_time(time) and any(ast.unparse(part) == doubled for part in ast.walk(value))
            case ast.BinOp(left=time, op=ast.Mult(), right=factor):
                found = _is_time(time) and any(map(_is_power_of_two, ast.walk(factor)))
            case ast.BinOp(left=time, op=ast.LShift(), right=by):
                found = _is_time(time) and not isinstance(by, ast.Constant)
            case _:
                found = False
        if found:
            yield node.lineno


def _is_time(node: ast.AST) -> bool:
    return isinstance(node, ast.Name | ast.Attribute) and TIME.search(ast.unparse(node)) is not None


def _is_power_of_two(node: ast.AST) -> bool:
    match node:
        case ast.BinOp(left=ast.Constant(value=2), op=ast.Pow()) | ast.BinOp(left=ast.Constant(value=1), op=ast.LShift()):
            return True
    return False


@pytest.mark.parametrize(
    "line",
    [
        "pause_s *= 2",
        "delay_s = min(delay_s * 2, 9)",
        "s = IDLE_S * 2**n",
        "x = a + PAUSE_S * 2.0 ** min(n, 4)",
        "s = PAUSE_S * float(1 << n)",
        "a = first_ms << n",
    ],
)
def test_a_backoff_by_hand_is_seen(line: str) -> None:
    assert list(doublings(line))


def test_nobody_doubles_a_pause_by_hand() -> None:
    own = Path(inspect.getfile(Backoff))
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for folder in ("app", "agents", "tables")
        for path in (ROOT / folder).rglob("*.py")
        if path != own
        for line in doublings(path.read_text())
    }
    assert not found, "use app.core.backoff.Backoff"
