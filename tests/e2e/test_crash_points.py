"""A sample of the crash sweep: real workers end at telling points, and no call of theirs is without one."""

import pytest

from app.crash.catalogue import POINTS, read_point
from app.crash.points import PlanFile
from app.progress import ProgressLines
from tests.e2e.live_stack import LiveStack
from tests.rig.crash_sweep.histories import Event, history_of
from tests.rig.crash_sweep.sweep import Sweep
from tests.worlds.waiting import eventually

pytestmark = pytest.mark.stack

SAMPLE = (
    "collector.registry.register.after",  # registered, and neither in Kinesis nor answered
    "bridge.kafka.send.block.after",  # in Kafka, and the checkpoint does not say so
    "etl.kafka.send.rows.after",  # in the log, and not in the store
    "sink.s3.put_if_absent.transactions.after",  # committed, and nothing of it moved
    "delivery.warehouse.commit.after",  # loaded, and delivery does not know it
    "audit.registry.complete.before",
)


async def test_workers_end_at_telling_points_and_every_row_is_exact(stack: LiveStack) -> None:
    plan = PlanFile(stack.crash_plan)
    eventually(lambda: "etl.rocksdb.write.after" in plan.reached())  # a store that a restarted ETL compares with the log
    points = [read_point(name) for name in SAMPLE]
    outcomes = await Sweep(stack.home, plan, ProgressLines()).round(points)
    assert [outcome for outcome in outcomes if not outcome.is_good] == []
    assert [outcome.died for outcome in outcomes] == [1] * len(SAMPLE)

    assert plan.unlisted() == set()
    ordinary = {
        str(point)
        for point in POINTS
        if not history_of(point).companions and set(history_of(point).events) <= {Event.RESTART, Event.FIRST_START}
    }
    assert ordinary - plan.reached() == set()
