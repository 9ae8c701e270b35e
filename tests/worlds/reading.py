"""Readers of a page as histories, and what is true of their attention: the definitions once more, in plain Python."""

import random
from dataclasses import dataclass, field
from itertools import pairwise

ENGAGED_MS = 5_000


@dataclass
class Reader:
    """What happened on a page: (time, what), times in whole milliseconds."""

    acts: list[tuple[int, str]] = field(default_factory=list)
    end: int = 0

    @classmethod
    def of(cls, seed: int) -> "Reader":
        """A history that ends within 110 s: acts come in bursts and after pauses."""
        chance = random.Random(seed)
        reader, now = cls(), 0
        for _ in range(chance.randint(0, 40)):
            now += chance.choice((chance.randint(1, 400), chance.randint(400, 6_000), chance.randint(4_000, 20_000)))
            if now > 110_000:
                break
            reader.acts.append((now, chance.choice(("scroll", "keydown", "pointerdown", "pointermove", "focus", "hidden"))))
        reader.end = now + chance.randint(1, 12_000)
        return reader

    def states(self) -> list[tuple[int, bool, bool]]:
        """(time, visible, focused) after each act, a sign of the reader. A page that hides loses the focus first."""
        visible = focused = True
        states = [(0, True, True)]
        for at, act in self.acts:
            if act == "hidden":
                visible = not visible
                focused = visible
            elif act == "focus":
                focused = not focused and visible
            states.append((at, visible, focused))
        return states


def truth(reader: Reader) -> tuple[int, int, int]:
    """Engaged, visible and dwell time: each stretch in which nothing changes is looked at by itself."""
    states = reader.states()
    signs = [at for at, is_visible, is_focused in states if is_visible and is_focused]
    times = sorted({at for at, *_ in states} | {at + ENGAGED_MS for at in signs} | {reader.end})
    engaged = visible = 0
    for start, stop in pairwise(times):
        if stop > reader.end:
            break
        _, is_visible, is_focused = [state for state in states if state[0] <= start][-1]
        visible += (stop - start) * is_visible
        engaged += (stop - start) * (is_visible and is_focused and any(at <= start < at + ENGAGED_MS for at in signs))
    return engaged, visible, reader.end
