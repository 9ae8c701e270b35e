"""How far each flow is complete in the warehouse, by the stream times of what is loaded."""

from collections.abc import Collection
from typing import Final

from app.core.formats.flows import FLOWS
from app.core.rules import JoinRules

WAITS_FOR_JOIN: Final = frozenset({"page_views", "engagements"})
"""The flows whose rows wait for the join; all others are emitted at once."""


def complete_up_to(stream_times_ms: Collection[int], join: JoinRules) -> dict[str, int]:
    """Flow -> the moment (ms) before which every received row that reached Kinesis in time is loaded.

    Args:
        stream_times_ms: for each partition the stream time of its last loaded transaction.
        join: how long rows may wait in the window.

    Returns: empty if a partition has no stream time yet.
    """
    if not stream_times_ms or min(stream_times_ms) <= 0:
        return {}
    passed_ms = min(stream_times_ms)
    return {flow.name: passed_ms - (join.settle_ms if flow.name in WAITS_FOR_JOIN else 0) for flow in FLOWS}
