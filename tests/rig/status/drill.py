"""Plants one fault after the other in a running stack, and measures how soon `instream status` names it rightly."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from app.local.stack.life import Home
from tests.rig.status.faults import Planted

INSTREAM = Path(sys.executable).with_name("instream")


class Told(NamedTuple):
    """An answer of `instream status --json`."""

    code: int
    answer: dict[str, Any]
    took_s: float

    def names(self, fault: Planted) -> bool:
        """Whether it says what it must."""
        is_said = any(fault.says in problem for problem in self.answer["problems"])
        return is_said and self.code in fault.codes and self.answer["slowest_stage"] == fault.stage


class Result(NamedTuple):
    """What came of a fault."""

    fault: Planted
    named_after_s: float | None
    """None if it was not named rightly in time."""
    told: Told


async def ask(caller: Mapping[str, str]) -> Told:
    """Run the command."""
    begun_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        INSTREAM, "status", "--json", env={**caller}, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return Told(process.returncode or 0, json.loads(said), time.monotonic() - begun_s)


async def until_healthy(caller: Mapping[str, str], limit_s: float) -> Told:
    """Ask until all is well, or until the time is over."""
    deadline_s = time.monotonic() + limit_s
    while True:
        told = await ask(caller)
        if told.code == 0 or time.monotonic() > deadline_s:
            return told


async def strike(fault: Planted, home: Home, caller: Mapping[str, str], limit_s: float) -> Result:
    """Plant a fault and ask until it is named rightly, or until the time is over."""
    async with fault.plant(home):
        begun_s = time.monotonic()
        while True:
            told = await ask(caller)
            passed_s = time.monotonic() - begun_s
            if told.names(fault):
                return Result(fault, passed_s if passed_s <= limit_s else None, told)
            if passed_s > limit_s:
                return Result(fault, None, told)
            print(
                f"  after {passed_s:.1f} s, in {told.took_s:.1f} s: exit {told.code}, {told.answer['problems'][:2]}",
                flush=True,
            )


def table(results: Sequence[Result]) -> str:
    """The results for people."""
    lines = [f"{'fault':<40} {'named after':>11}  {'stage':<10} exit  what it said first"]
    for result in results:
        after = "NOT NAMED" if result.named_after_s is None else f"{result.named_after_s:.1f} s"
        first = (result.told.answer["problems"] or ["nothing"])[0]
        stage = result.told.answer["slowest_stage"] or "-"
        lines.append(f"{result.fault.name:<40} {after:>11}  {stage:<10} {result.told.code:>4}  {first[:110]}")
    return "\n".join(lines)


def environment(home: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of the commands of a stack of our own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("INSTREAM_", "AWS_"))}
    return {**own, **settings, "INSTREAM_HOME": str(home)}
