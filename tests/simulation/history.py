"""Plays one seed."""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import cache
from typing import NamedTuple

from tests.simulation.invariants import check
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.world import World


class History(NamedTuple):
    """What came of a seed."""

    seed: int
    violations: list[str]
    counts: Counter[str]
    digest: str
    events: int
    virtual_s: float


Narrate = Callable[[str], None] | None
NewWorld = Callable[[VirtualLoop, int, Narrate], World]
Check = Callable[[World], Awaitable[None]]


def play(seed: int, narrate: Narrate = None, new_world: NewWorld = World, check: Check = check) -> History:
    """Play the history of a seed, check what must hold, and clean up."""
    loop = VirtualLoop()
    loop.set_exception_handler(lambda *_: None)
    world: World | None = None
    spare_the_process()
    gc.collect()  # the histories before

    async def whole() -> None:
        nonlocal world
        world = new_world(loop, seed, narrate)
        await world.play()
        if not world.violations:
            await check(world)

    try:
        loop.run_until_complete(whole())
        assert world is not None
        return History(
            seed, world.violations, world.faults.counts, world.digest, sum(len(s.lines) for s in world.traffic.acknowledged),
            loop.time(),
        )  # fmt: skip
    finally:
        if world is not None:
            world.closing = True
        end(loop)


@cache
def spare_the_process() -> None:
    """Take everything that lives before the first history out of all collections: walking through it takes most of each."""
    gc.collect()
    gc.freeze()


def end(loop: VirtualLoop) -> None:
    """Cancel what is left, whatever it does about that."""
    for _ in range(20):
        left = asyncio.all_tasks(loop)
        if not left:
            break
        for task in left:
            task.cancel()
        try:
            loop.run_until_complete(asyncio.wait(left, timeout=100))
        except BaseException:
            continue
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
