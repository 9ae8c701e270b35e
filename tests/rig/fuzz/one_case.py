"""Plays one case, and says if something came out that the target does not declare."""

import base64
import signal
import time
import traceback
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from tests.rig.fuzz.mutate import case
from tests.rig.fuzz.target import Target

_ROOT: Final = Path(__file__).parents[3]
_OWN: Final = tuple(f"{_ROOT / part}/" for part in ("app", "agents", "tables", "tests"))
BUDGET_S: Final = 5.0
"""CPU time of a case. The worst bodies that the collector takes need a hundredth of it."""


SHORT: Final = 500
"""Longer bytes are shown compressed: most of them are one thing repeated."""


class Finding(msgspec.Struct, frozen=True):
    """A case in which a target did something that it does not declare."""

    target: str
    seed: int
    what: str
    """The exception and its place, or the end of the process."""
    data: str
    """The bytes, as text."""
    trace: str = ""


class OverBudget(BaseException):  # no `except Exception` may catch it
    """A case took more CPU time than its budget."""


@contextmanager
def cpu_budget(seconds: float) -> Iterator[None]:
    """End what takes more CPU time than that; native code that never returns to Python is not ended."""

    def give_up(_: int, __: FrameType | None) -> None:
        raise OverBudget

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Played(msgspec.Struct, frozen=True):
    """One played case."""

    cpu_s: float
    finding: Finding | None = None


def play(target: Target, seed: int, budget_s: float = BUDGET_S) -> Played:
    """Play the case of this seed. It must run in the process's main thread."""
    data = case(target, seed)
    began_s = time.process_time()
    finding = None
    try:
        with cpu_budget(budget_s):
            target.read(data)
    except target.errors:
        pass
    except KeyboardInterrupt:
        raise
    except OverBudget as exc:
        finding = Finding(target.name, seed, f"more than {budget_s:g} s of CPU{_place(exc)}", describe(data), _trace(exc))
    except BaseException as exc:  # a panic in polars is no Exception
        finding = Finding(target.name, seed, f"{type(exc).__name__}{_place(exc)}", describe(data), _trace(exc))
    return Played(time.process_time() - began_s, finding)


def describe(data: bytes) -> str:
    """The bytes as text from which they can be made again."""
    if len(data) <= SHORT:
        return "base64 " + base64.b64encode(data).decode()
    return "base64 of zlib " + base64.b64encode(zlib.compress(data)).decode()


def _place(exc: BaseException) -> str:
    """The innermost place in the project's own code; findings of one place are shown once."""
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if frame.filename.startswith(_OWN)]
    return f" at {own[-1].filename.rpartition('/')[2]}:{own[-1].lineno}" if own else ""


def _trace(exc: BaseException) -> str:
    return "".join(traceback.format_exception(exc, limit=-8))[-4000:]
