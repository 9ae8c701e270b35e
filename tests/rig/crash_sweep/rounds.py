"""The points of each round: few of each role, one after the other, and none of a role that dies for another's point."""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Final

from app.crash.catalogue import Point, read_point
from tests.rig.crash_sweep.histories import Event, History, history_of

OF_A_ROLE: Final = 2
"""Most points of one role in a round, if they need only traffic: the worker comes to one after the other."""


def busy_roles(point: Point) -> set[str]:
    """The roles whose workers die while `point` is met."""
    return {point.role, *(read_point(name).role for name in history_of(point).companions)}


def rounds_of(points: Iterable[Point], together: int) -> list[list[Point]]:
    """The points in rounds of at most `together` roles, in each role's order.

    Those of a stack's first start come first and in one round, those that need a stale store last and alone.
    """
    first: list[Point] = []
    last: list[list[Point]] = []
    waiting: dict[str, deque[Point]] = defaultdict(deque)
    for point in points:
        events = history_of(point).events
        if Event.FIRST_START in events:
            first.append(point)
        elif Event.STALE_STORE in events:
            last.append([point])
        else:
            waiting[point.role].append(point)
    found = [first] if first else []
    while any(waiting.values()):
        found.append(_next_round(waiting, together))
    return found + last


def _next_round(waiting: dict[str, deque[Point]], together: int) -> list[Point]:
    taken: list[Point] = []
    busy: set[str] = set()
    roles = 0
    for queue in sorted(waiting.values(), key=len, reverse=True):
        if not queue or roles == together or busy & busy_roles(queue[0]):
            continue
        roles += 1
        busy |= busy_roles(queue[0])
        taken.append(queue.popleft())
        behind = 1
        while queue and behind < OF_A_ROLE and _is_plain(taken[-1]) and _is_plain(queue[0]):
            taken.append(queue.popleft())
            behind += 1
    return taken


def _is_plain(point: Point) -> bool:
    return history_of(point) == History()


def needs(event: Event, points: Sequence[Point]) -> bool:
    """Whether one of these points needs that event."""
    return any(event in history_of(point).events for point in points)


def lives_of(points: Iterable[Point]) -> list[list[Point]]:
    """The points by the stack that they need: the usual one, and one that forgets within seconds."""
    usual: list[Point] = []
    forgetful: list[Point] = []
    for point in points:
        (forgetful if needs(Event.SHORT_MEMORY, [point]) else usual).append(point)
    return [life for life in (usual, forgetful) if life]
