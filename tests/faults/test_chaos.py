"""A short chaos: faults of every group strike a stack under load, and not one promise is broken."""

import json
import subprocess
import sys

import pytest

from app.local.services.aws_faults import AwsFault as AwsKind
from tests.rig.chaos.plan import AwsFault

pytestmark = [pytest.mark.stack, pytest.mark.timeout(420)]
STATE = (AwsFault.STATE_DELETED, AwsFault.STATE_TRUNCATED, AwsFault.STATE_ROLLED_BACK)
WAREHOUSE = tuple(kind for kind in AwsFault if kind.value.startswith("warehouse"))


def test_forty_seconds_of_chaos_break_nothing() -> None:
    command = [sys.executable, "-m", "tests.rig.chaos", "--minutes", "0.7", "--seed", "1", "--rate", "60", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["violations"] == [], done.stderr
    assert done.returncode == 0
    faults = report["faults"]
    for kind in (AwsFault.TERM, AwsFault.KILL, AwsFault.ZOMBIE, AwsFault.BROKER, AwsFault.REBALANCE, AwsFault.S3_OUTAGE):
        assert faults[kind] > 0, faults
    for kind in (AwsKind.S3_ERROR, AwsKind.S3_SLOW_DOWN, AwsKind.S3_RESET, AwsKind.S3_LOST, AwsKind.THROTTLED):
        assert faults[kind] > 0, faults
    assert faults[AwsKind.PARTIAL] + faults[AwsKind.PUT_TWICE] + faults[AwsKind.PAGE_TWICE] > 3, faults
    assert faults[AwsFault.SPLIT] + faults[AwsFault.MERGE] > 0, faults
    assert sum(faults[kind] for kind in STATE) > 0, faults
    assert sum(faults[kind] > 0 for kind in WAREHOUSE) >= 2, faults
    assert report["lines"] > 2000
    assert report["settled_s"] < 300
