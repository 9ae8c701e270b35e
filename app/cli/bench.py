"""`instream bench`: measures the cost of each stage."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import MOST_LINES, MOST_RATE, number, whole
from app.cli.show import JsonOption, print_json, print_table
from app.progress import ProgressLines

if TYPE_CHECKING:
    from app.bench.measure import Result

ALL = "all"


def bench(  # noqa: PLR0913, PLR0917 - the options of a command
    stage: Annotated[str, typer.Argument(help="etl-core, etl, sink, collector, ..., or all: each once, small.")] = ALL,
    events: Annotated[int | None, whole("Number of events in a run; small by default.", 1, MOST_LINES)] = None,
    block_lines: Annotated[int, whole("Lines in a block.", 1, 60_000)] = 500,
    state_keys: Annotated[int, whole("Ids that the ETL's state knows beforehand.", 0, 1_000_000_000)] = 0,
    repeats: Annotated[int | None, whole("Runs; the best and the median are shown.", 1, 1000)] = None,
    rate: Annotated[float, number("Lines a second, for stage `stack`.", 1, MOST_RATE)] = 500,
    real_time: Annotated[
        bool, typer.Option("--real-time", help="Stage `stack` at the default window and intervals.")
    ] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Leave a flame graph, bench-<stage>.svg, here.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the pipeline's stages: CPU time an event (user + system) of the process at work, on real parts.

    Every run compares its rows with the rows that its events must make. CPU times are the best of some runs, their median,
    and a
    floor: the sum over equal pieces of the work of each piece's best time. Other work on the machine makes all larger.
    """
    os.environ.setdefault("POLARS_MAX_THREADS", "1")  # as workers have it; before anything imports polars
    from app.bench.measure import Result  # noqa: PLC0415 - commands load what they need
    from app.bench.plan import BenchPlan  # noqa: PLC0415
    from app.bench.report import COLUMNS, details_of, rows_of  # noqa: PLC0415
    from app.bench.stage_list import STAGES, run_stage  # noqa: PLC0415
    from app.settings import read_settings  # noqa: PLC0415
    from app.variables import shown  # noqa: PLC0415

    if stage != ALL and stage not in STAGES:
        raise typer.BadParameter(f"{shown(stage)} is no stage; there are {', '.join(STAGES)} and {ALL}")
    read_settings()  # refused here rather than in the middle of a stage
    say, results = ProgressLines(), list[Result]()
    for name in STAGES if stage == ALL else [stage]:
        say(f"{name}: running")
        if stage == ALL:
            results.append(_in_own_process(name))
            continue
        plan = BenchPlan(
            events=events or STAGES[name].small, block_lines=block_lines, state_keys=state_keys,
            repeats=repeats or STAGES[name].repeats, rate=rate, real_time=real_time,
            profile=Path(f"bench-{name}.svg") if profile else None,
        )  # fmt: skip
        results.append(run_stage(name, plan))
    if as_json:
        print_json(results)
        return
    print_table("CPU microseconds an event", COLUMNS, rows_of(results))
    for result in results:
        for line in details_of(result):
            print(line)


def _in_own_process(stage: str) -> "Result":
    """A stage in a process of its own: memory and caches of one stage do not show in another."""
    import msgspec  # noqa: PLC0415

    from app.bench.measure import Result  # noqa: PLC0415
    from app.errors import BenchmarkWrong  # noqa: PLC0415

    code = "from app.cli.main import main; main()"
    command = [sys.executable, "-c", code, "bench", stage, "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise BenchmarkWrong(f"stage {stage} ended with {done.returncode}")
    (result,) = msgspec.json.decode(done.stdout, type=list[Result])
    return result
