"""What an outage run measures and concludes, without a stack."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from app.local.stack.environment import ROLES
from app.local.stack.life import Home
from app.local.stack.stack_file import StackProcess
from app.settings import Settings
from tests.rig.outage import memory
from tests.rig.outage.__main__ import show
from tests.rig.outage.faults import OUTAGES, frozen
from tests.rig.outage.memory import MIB, MemoryWatch, bounds_mib
from tests.rig.outage.run import Behind, OutageResult, Passed


def test_bounds_are_what_the_readme_says() -> None:
    assert bounds_mib(Settings(), 4) == {
        "collector": 250 + 288 + 125, "bridge": 214, "etl": 400 + 64 + 4 * 96, "sink": 250 + 4 * (64 + 32) + 5 * 64,
        "delivery": 200, "audit": 250,
    }  # fmt: skip
    assert bounds_mib(Settings(), 4).keys() == set(ROLES)


def test_the_highest_memory_of_each_process_is_kept_by_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    processes = [StackProcess("etl", os.getpid(), ""), StackProcess("sink", dead.pid, "")]
    monkeypatch.setattr(memory, "read_stack", lambda _: SimpleNamespace(processes=processes))
    watch = MemoryWatch(Home(tmp_path))
    watch.phase = "one"
    watch.sample()
    peak = watch.peaks_mib["one"]["etl"]
    assert abs(peak - psutil.Process().memory_info().rss // MIB) < 20
    watch.peaks_mib["one"]["etl"] = 10**6
    watch.sample()
    watch.phase = "two"
    watch.sample()
    assert {phase: set(roles) for phase, roles in watch.peaks_mib.items()} == {"one": {"etl"}, "two": {"etl"}}
    assert watch.peaks_mib["one"]["etl"] == 10**6
    assert watch.peaks_mib["two"]["etl"] < 10**6


def test_a_frozen_process_stands_and_goes_on_even_if_the_outage_fails() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        stack: Any = SimpleNamespace(running_pid=lambda _: process.pid)

        def fail() -> None:
            with frozen(stack, ["kafka"]):
                while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
                    time.sleep(0.001)  # a signal takes effect when the process is next looked at
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        while psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
            time.sleep(0.001)
        process.kill()


def result(peak: int, violations: list[str]) -> OutageResult:
    outages = [Passed(outage.name, 36, Behind(1, 2), Behind(None, None), Behind(3, 4)) for outage in OUTAGES]
    return OutageResult(
        outages=outages, peaks_mib={"before": {"etl": 100}, "kafka": {"etl": peak}}, bounds_mib={"etl": 200},
        violations=violations, lines=1000, retries=1, restarts={"etl": 2, "sink": 0},
    )  # fmt: skip


def test_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(200, [])
    assert found.over == []
    show(found)
    out = capsys.readouterr().out
    assert out.endswith("BOUNDED, EVERYTHING DELIVERED\n")
    assert "started again: etl 2\n" in out


def test_memory_over_its_bound_and_what_was_not_delivered_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(201, ["I2: batch b lacks lines"])
    assert found.over == ["etl had 201 MiB in kafka, its bound is 200"]
    show(found)
    out = capsys.readouterr().out
    assert "I2: batch b lacks lines" in out
    assert out.endswith("NOT BOUNDED, 1 VIOLATIONS\n")
