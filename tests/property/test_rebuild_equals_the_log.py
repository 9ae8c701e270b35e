"""A rebuild makes the rows and the ledger of the log, in whatever order the log had the blocks."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.core.rebuild.span import BatchSpan
from tests.builders.source_log import GOOGLEBOT, at_ms, event
from tests.worlds.etl_run import ledger_of
from tests.worlds.rebuild import RawWorld, live_rows

ALL = BatchSpan(at_ms(-1000), at_ms(1000))
TYPES = st.sampled_from(["page_view", "engagement", "engagement", "ad_click"])


@st.composite
def lines(draw: st.DrawFn) -> dict[str, Any]:
    number = draw(st.integers(0, 5))
    at_s = draw(st.integers(0, 300))
    bot = {"user_agent": GOOGLEBOT} if draw(st.integers(0, 9)) == 0 else {}
    return event(f"e{number}", draw(TYPES), view=f"v{draw(st.integers(0, 2))}", at_s=at_s, **bot)


@given(st.lists(st.lists(lines(), min_size=1, max_size=4), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_rebuild_makes_what_the_log_made(groups: list[list[dict[str, Any]]], chance: Any) -> None:
    world = RawWorld()
    for group in groups:
        world.add(*group)
    order = list(range(len(groups)))
    chance.shuffle(order)
    steps = world.live(order)
    with TemporaryDirectory() as folder:
        rebuilt = world.rebuilt(Path(folder), ALL, steps)
    assert rebuilt.rows() == live_rows(steps)
    assert {(batch, line, outcome) for (batch, line), outcome in rebuilt.ledger().items()} == set(ledger_of(steps))
