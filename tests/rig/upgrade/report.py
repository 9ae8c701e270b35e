"""The answer of a drill, and its tables."""

import msgspec
import typer

from app.cli.show import print_table
from tests.rig.invariants.violation import Violation
from tests.rig.upgrade.plan import Step, Way


class Done(msgspec.Struct, frozen=True):
    """A step that was carried out; moments are seconds since the epoch."""

    step: Step
    began_s: float
    """When the process was told to end."""
    ready_s: float
    """When it was ready and had proved its code."""
    visible_s: float
    """When every partition had shown something new after that."""


class PartitionPause(msgspec.Struct, frozen=True):
    """The longest pauses of a partition, seconds."""

    partition: int
    before_s: float
    """Before the first step, under the same load."""
    longest_s: float
    """Over both ways."""
    at_s: float
    """When that one began, seconds after the load."""
    during: str
    """The step that it fell into; empty for a pause between steps."""


class Report(msgspec.Struct, kw_only=True):
    """The answer of a drill."""

    versions: str
    """The two versions, in words."""
    load_s: float = 0.0
    """How long the load ran."""
    load_began_s: float = 0.0
    steps: list[Done] = []
    step_pauses_s: list[float] = []
    """For each step, the longest pause of any partition that fell into it."""
    partitions: list[PartitionPause] = []
    lines: int = 0
    requests_retried: int = 0
    slowest_answer_s: float = 0.0
    newer_events: int = 0
    newer_loaded: int = 0
    """Of those, rows in the newer flow; the others are rejected rows."""
    newer_fields: int = 0
    """Page views with the newer field in its column; in the others it is in `properties`."""
    newer_columns: int = 0
    """Page views with a value in the newer column, which the etl computes."""
    settled_s: float = 0.0
    took_s: float = 0.0
    violations: list[Violation] = []


def show(report: Report) -> None:
    """Print the tables and the verdict."""
    began = {
        (one.step.way, one.step.process): (one, pause) for one, pause in zip(report.steps, report.step_pauses_s, strict=True)
    }
    rows: list[tuple[object, ...]] = []
    for process in dict.fromkeys(one.step.process for one in report.steps):
        cells: list[str] = []
        for way in Way:
            found = began.get((way, process))
            cells += ["", "", ""] if found is None else _cells(*found, report.load_began_s)
        rows.append((process, *cells))
    columns = ("process", "up at s", "ready after", "pause", "back at s", "ready after", "pause")
    print_table(f"{report.versions}; seconds, under load for {report.load_s:.0f} s", columns, rows)
    print_table(
        "longest seconds between two loads that had rows of a partition (delivery_log.loaded_at), while traffic was sent",
        ("partition", "before the first step", "after it", "at s", "in the step of"),
        [(str(one.partition), f"{one.before_s:.1f}", f"{one.longest_s:.1f}", f"{one.at_s:.0f}", one.during)
         for one in report.partitions],
    )  # fmt: skip
    typer.echo(
        f"{report.lines:,} lines acknowledged ({report.requests_retried} requests sent again, slowest answer "
        f"{report.slowest_answer_s:.1f} s); settled {report.settled_s:.0f} s after the load; {report.took_s:.0f} s in all"
    )
    if report.newer_events:
        typer.echo(
            f"{report.newer_events:,} newer events: {report.newer_loaded:,} rows in their flow, the others rejected by an "
            f"older collector; {report.newer_fields:,} page views have the newer field in its column, and "
            f"{report.newer_columns:,} the newer computed column"
        )
    for violation in report.violations:
        typer.echo(str(violation))
    typer.echo(
        "GOOD: every row is as it must be" if not report.violations else f"DIFFERS: {len(report.violations)} violations"
    )


def _cells(done: Done, pause_s: float, load_began_s: float) -> list[str]:
    return [f"{done.began_s - load_began_s:.0f}", f"{done.ready_s - done.began_s:.1f}", f"{pause_s:.1f}"]
