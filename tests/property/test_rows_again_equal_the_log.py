"""The rows of any part of the log are made again from raw blocks and the ledger of that part (rule R6)."""

from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from app.core.formats.batch import cut_again
from app.core.formats.flows import ENGAGEMENTS, PAGE_VIEWS
from app.core.formats.step_message import StepMessage
from app.core.rebuild.lost_lines import PartitionRules
from app.core.rebuild.rows_again import rows_again, with_reasons
from tests.builders.source_log import GOOGLEBOT, enricher, event
from tests.worlds.rebuild import RawWorld, live_rows, rows_of

TYPES = st.sampled_from(["page_view", "page_view", "engagement", "engagement", "engagement", "ad_click", "redirect"])


@st.composite
def lines(draw: st.DrawFn) -> dict[str, Any]:
    """Few page views, so that first and second events meet in every order; few events are copies."""
    bot = {"user_agent": GOOGLEBOT} if draw(st.integers(0, 19)) == 0 else {}
    view, at_s = f"v{draw(st.integers(0, 2))}", draw(st.integers(0, 250))
    return event(f"e{draw(st.integers(0, 50))}", draw(TYPES), view=view, at_s=at_s, **bot)


def ledger_of(steps: list[StepMessage]) -> dict[str, dict[str, BitMap]]:
    found: dict[str, dict[str, BitMap]] = {}
    for entry in (entry for step in steps for entry in step.ledger):
        of_outcome = found.setdefault(entry.outcome, {})
        of_outcome[entry.batch_id] = of_outcome.get(entry.batch_id, BitMap()) | BitMap.deserialize(entry.line_set)
    return found


def first_events_of(steps: list[StepMessage]) -> dict[str, int]:
    """Page view -> receipt of its first event; steps close page views in the order of their receipt."""
    found: dict[str, tuple[int, str]] = {}
    for step in steps:
        if PAGE_VIEWS.name in step.rows:
            frame = pl.read_ipc_stream(step.rows[PAGE_VIEWS.name])
            for view, at_ms, event_id in frame.select("page_view_id", "received_at", "event_id").iter_rows():
                found[view] = min(found.get(view, (at_ms, event_id)), (at_ms, event_id))
    return {view: at_ms for view, (at_ms, _) in found.items()}


@given(
    st.lists(st.lists(lines(), min_size=1, max_size=6), min_size=2, max_size=8), st.randoms(use_true_random=False), st.data()
)
def test_rows_of_some_steps_are_made_again(groups: list[list[dict[str, Any]]], chance: Any, data: st.DataObject) -> None:
    world = RawWorld()
    for group in groups:
        world.add(*group)
    order = list(range(len(groups)))
    chance.shuffle(order)
    steps = world.live(order)
    first = data.draw(st.integers(0, len(steps) // 2))
    some = steps[first : data.draw(st.integers(len(steps) // 2 + 1, len(steps)))]
    envelopes = [block for batch in world.batches for block in cut_again(batch.raw, batch.item, 0)]
    made = rows_again(PartitionRules(0, world.rules, enricher()), envelopes, ledger_of(some), "1-0-1-ab")
    if ENGAGEMENTS.name in made:
        made[ENGAGEMENTS.name] = with_reasons(made[ENGAGEMENTS.name], world.rules.join, first_events_of(steps))
    rows = [row for flow, frame in made.items() for row in rows_of(flow, frame.drop("txn_id"))]
    assert sorted(rows) == live_rows(some)
