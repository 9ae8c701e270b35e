"""The results of stages as one table and their details as lines."""

from collections.abc import Sequence

from app.bench.measure import Result

COLUMNS = ("stage", "event", "events", "us CPU", "median", "floor", "events/s a core", "figure", "peak MB", "B in", "B out")


def rows_of(results: Sequence[Result]) -> list[tuple[object, ...]]:
    """One row a stage; CPU microseconds and bytes are per event."""
    rows: list[tuple[object, ...]] = []
    for result in results:
        best, floor = result.best, result.floor_us
        rows.append((
            result.stage, result.unit, best.events, f"{best.cpu_us:.2f}", f"{result.median_us:.2f}",
            "" if floor is None else f"{floor:.2f}", round(best.per_s), result.figure, best.peak_rss_bytes >> 20,
            round(best.bytes_in / best.events), round(best.bytes_out / best.events),
        ))  # fmt: skip
    return rows


def details_of(result: Result) -> list[str]:
    """The phases of the best run, and the stage's own values."""
    best = result.best
    lines = []
    if best.phases:
        parts = (f"{phase} {share * best.cpu_us:.2f}" for phase, share in best.phases.items() if share >= 0.01)
        lines.append(f"{result.stage}: us by phase: " + ", ".join(parts))
    if best.more:
        lines.append(f"{result.stage}: " + ", ".join(f"{name} {value:,.1f}" for name, value in best.more.items()))
    return lines
