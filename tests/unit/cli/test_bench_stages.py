"""Every benchmark stage that needs no stack runs, and counts its rows against what its events must make."""

import subprocess
import sys

import msgspec
import pytest

from app.bench.measure import BenchRun, Result


def run_stage(stage: str, events: int) -> Result:
    command = [sys.executable, "-c", "from app.cli.main import main; main()", "bench", stage]
    options = ["--events", str(events), "--repeats", "1", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    (result,) = msgspec.json.decode(done.stdout, type=list[Result])
    return result


@pytest.mark.parametrize(
    ("stage", "events", "counted"),
    [
        ("etl-core", 2000, 2000),
        ("audit", 100, 100),
        ("books", 16384, 16384),
        ("index", 9000, 9000),
        ("delivery", 70, 70),
        ("collector", 100, 100),
    ],
)
def test_a_stage_works_on_what_it_was_given(stage: str, events: int, counted: int) -> None:
    result = run_stage(stage, events)
    assert result.best.events == counted
    assert result.best.cpu_s > 0


def test_the_floor_is_the_best_time_of_each_slice() -> None:
    runs = [BenchRun(events=2, cpu_s=9, wall_s=9, slices_s=slices) for slices in ([1.0, 5.0], [4.0, 2.0])]
    assert Result(stage="s", unit="event", runs=runs).floor_us == 1.5e6
