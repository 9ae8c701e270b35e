"""Plays one seed."""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
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
    gc.collect()  # once: what lives already need not be walked through each time that a worker looks for what lives
    gc.freeze()

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
        gc.unfreeze()  # workers take what they live with out of all collections; these are gone, and all they held in cycles


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
