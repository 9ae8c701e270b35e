"""A short chaos: faults of every group strike a stack under load, and not one promise is broken."""

import json
import subprocess
import sys

import pytest

from app.local.services.aws_faults import AwsFault
from tests.rig.chaos.plan import Kind

pytestmark = pytest.mark.stack
STATE = (Kind.STATE_DELETED, Kind.STATE_TRUNCATED, Kind.STATE_ROLLED_BACK)
WAREHOUSE = tuple(kind for kind in Kind if kind.value.startswith("warehouse"))


def test_forty_seconds_of_chaos_break_nothing() -> None:
    command = [sys.executable, "-m", "tests.rig.chaos", "--minutes", "0.7", "--seed", "1", "--rate", "60", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["violations"] == [], done.stderr
    assert done.returncode == 0
    faults = report["faults"]
    for kind in (Kind.TERM, Kind.KILL, Kind.ZOMBIE, Kind.BROKER, Kind.REBALANCE, Kind.S3_OUTAGE):
        assert faults[kind] > 0, faults
    for kind in (AwsFault.S3_ERROR, AwsFault.S3_SLOW_DOWN, AwsFault.S3_RESET, AwsFault.S3_LOST, AwsFault.THROTTLED):
        assert faults[kind] > 0, faults
    assert faults[AwsFault.PARTIAL] + faults[AwsFault.PUT_TWICE] + faults[AwsFault.PAGE_TWICE] > 3, faults
    assert faults[Kind.SPLIT] + faults[Kind.MERGE] > 0, faults
    assert sum(faults[kind] for kind in STATE) > 0, faults
    assert sum(faults[kind] > 0 for kind in WAREHOUSE) >= 2, faults
    assert report["lines"] > 2000
    assert report["settled_s"] < 300
