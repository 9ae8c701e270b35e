"""The list of stages."""

from collections.abc import Callable
from importlib import import_module
from typing import Final, NamedTuple

from app.bench.measure import BenchRun, Result
from app.bench.plan import BenchPlan


class BenchStage(NamedTuple):
    """A stage: its event, its size in `make bench`, and its function."""

    unit: str
    small: int
    """Events of a small run."""
    repeats: int
    function: str
    """`module:function` in `app.bench.stages`."""
    figure: str = ""
    """The target."""


STAGES: Final = {
    "etl-core": BenchStage("event", 200_000, 5, "etl_core:run", "<= 8 us"),
    "etl": BenchStage("event", 400_000, 2, "etl:run", "<= 8 us"),
    "sink": BenchStage("row", 200_000, 3, "sink:run", "<= 8 us"),
    "collector": BenchStage("request", 15_000, 2, "collector:run_single", ">= 4,000/s"),
    "collector-ndjson": BenchStage("event", 300_000, 2, "collector:run_ndjson", ">= 60,000/s"),
    "bridge": BenchStage("event", 300_000, 3, "bridge:run", "<= 0.4 us"),
    "delivery": BenchStage("transaction", 5_000, 3, "delivery:run"),
    "audit": BenchStage("batch", 20_000, 2, "audit:run", "<= 300 us"),
    "books": BenchStage("line", 2_000_000, 3, "books:run", "<= 0.12 us"),
    "index": BenchStage("line", 200_000, 2, "index:run", "<= 5 us"),
    "recovery": BenchStage("id", 300_000, 3, "recovery:run", ">= 1,000,000/s"),
    "stack": BenchStage("line", 10_000, 1, "stack:run"),
}
"""In the order of importance."""


def run_stage(name: str, plan: BenchPlan) -> Result:
    """Run one stage.

    Raises:
        BenchmarkWrong: the counted rows do not fit the events.
    """
    stage = STAGES[name]
    module, _, function = stage.function.partition(":")
    run: Callable[[BenchPlan], list[BenchRun]] = getattr(import_module(f"app.bench.stages.{module}"), function)
    return Result(stage=name, unit=stage.unit, figure=stage.figure, runs=run(plan))
