"""Which process goes to the other version when.

On the way up readers go before writers, on the way back writers go before readers (rule E10).
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from app.local.stack.environment import ROLES
from app.local.stack.trees import INIT

ORDER_UP: Final = ("delivery", "sink", "etl", "bridge", "audit", "collector")
"""Behind `init`, which changes the warehouse. A reader of the old version would wait for ever before newer bytes."""
ORDER_BACK: Final = tuple(reversed(ORDER_UP))
READERS: Final = frozenset({"etl", "sink", "delivery"})
"""On the way back each of them first reads everything that the newer writers before it left."""


class Way(StrEnum):
    """A direction."""

    UP = "up"
    BACK = "back"


class Step(msgspec.Struct, frozen=True):
    """A process that goes to the other version; `init` is the change of the warehouse's schema."""

    way: Way
    role: str
    process: str
    drains: bool = False
    """Everything that was written until now must be loaded before it."""


def plan(extras: Sequence[str] = ()) -> list[Step]:
    """The steps of a drill, in order.

    Args:
        extras: workers beside the supervised ones, `<role>-<number>`; a role's extra workers go before it.

    Guarantees: every process goes up once and back once; a reader goes up before its writer and back after it.
    """
    steps = [Step(Way.UP, INIT, INIT)]
    for way, order in ((Way.UP, ORDER_UP), (Way.BACK, ORDER_BACK)):
        for role in order:
            processes = [*(name for name in extras if role_of(name) == role), role]
            for position, process in enumerate(processes):
                steps.append(Step(way, role, process, way is Way.BACK and role in READERS and position == 0))
    return steps


def role_of(process: str) -> str:
    """The role of a process: `etl` of `etl-2`."""
    return process.partition("-")[0]


def everyone(extras: Sequence[str] = ()) -> tuple[str, ...]:
    """Every name that has a tree when a drill begins."""
    return (INIT, *ROLES, *extras)
