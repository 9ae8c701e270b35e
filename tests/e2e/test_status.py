"""`instream status` on the running stack: all is well, and then some real faults are each named with their stage.

`make status-drill` plants all of them, crash loops too.
"""

import pytest

from tests.e2e.live_stack import LiveStack
from tests.rig.status.drill import strike, until_healthy
from tests.rig.status.faults import FAULTS
from tests.worlds.waiting import HANGS_S

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

PLANTED = ("sink is frozen", "a column is dropped", "S3 fails")


async def test_faults_are_named_with_their_stage_and_nothing_is_named_when_all_is_well(stack: LiveStack) -> None:
    well = await until_healthy(stack.caller, HANGS_S)
    assert (well.code, well.answer["problems"]) == (0, [])
    assert {role["role"]: role["state"] for role in well.answer["roles"]} == dict.fromkeys(stack.stack.metrics, "ready")
    assert {stage["stage"] for stage in well.answer["stages"]} == {"bridge", "etl", "sink", "delivery"}
    assert well.answer["lag_s"] < 300
    planted = [fault for fault in FAULTS if fault.name in PLANTED]
    assert len(planted) == len(PLANTED)
    for fault in planted:
        result = await strike(fault, stack.home, stack.caller, HANGS_S)
        assert result.named_after_s is not None, (fault.name, result.told.code, result.told.answer)
    assert (await until_healthy(stack.caller, HANGS_S)).code == 0


def test_status_is_for_people_too(stack: LiveStack) -> None:
    done = stack.instream("status")
    assert "warehouse is complete up to " in done.stdout
    assert f"collector  {stack.stack.collector_url}/v1/events" in done.stdout
    assert "demo:browser" not in done.stdout
