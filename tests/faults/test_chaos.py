"""A short chaos: faults of every group strike a stack under load, and not one promise is broken."""

import json
import subprocess
import sys

import pytest

from tests.rig.chaos.plan import Kind, kinds_of
from tests.rig.chaos.strike import OFTEN

pytestmark = pytest.mark.stack
MINUTES = 0.7
RESHARDING = (Kind.SPLIT, Kind.MERGE)
"""Each turns into the other where shards are too many or too few."""


def test_forty_seconds_of_chaos_break_nothing() -> None:
    command = [sys.executable, "-m", "tests.rig.chaos", "--minutes", str(MINUTES), "--seed", "1", "--rate", "60", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["violations"] == [], done.stderr
    assert done.returncode == 0
    faults = report["faults"]
    assert [kind for kind in {*kinds_of(MINUTES * 60), *OFTEN} - {*RESHARDING} if not faults.get(kind)] == []
    assert sum(faults[kind] for kind in RESHARDING) > 0, faults
    assert report["lines"] > 2000
