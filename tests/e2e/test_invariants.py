"""The invariants of a live stack, checked exactly; each of its damages is seen."""

import json

import pytest

from app.local.traffic.run import TrafficRun
from app.settings import read_settings
from tests.e2e.live_stack import LiveStack
from tests.rig.invariants.check import Terms, check, judge
from tests.rig.invariants.gather import Contents, ports_of
from tests.rig.invariants.settle import settle
from tests.rig.invariants.violation import Violation
from tests.worlds.waiting import HANGS_S

pytestmark = pytest.mark.stack
NOT_ALONE = Terms(alone=False, settle_s=HANGS_S)
"""Other tests send to this stack too."""
ROW = "SELECT * FROM analytics.ad_impressions WHERE event_id = {victim}"


@pytest.fixture(scope="module")
def runs() -> list[TrafficRun]:
    return []


@pytest.fixture(scope="module")
def contents() -> Contents:
    """What these tests have read of S3: nearly all of it is there, the same, when the next one looks."""
    return {}


async def test_a_load_has_to_settle_and_then_leaves_no_violation_nor_does_every_batch_once_more(
    stack: LiveStack, runs: list[TrafficRun]
) -> None:
    run = await stack.load(events=1000, rate=500, seed=51)
    with stack.nothing_loaded():
        assert await stack.post("unsettled") == 200
        async with ports_of(read_settings()) as ports:
            unsettled = await settle(ports, 0, lambda _: None)
    assert [violation.rule for violation in unsettled] == ["I7"]
    assert "open batches" in unsettled[0].text
    said: list[str] = []
    assert await check(read_settings(), [run], NOT_ALONE, said.append) == []
    assert any("blocks) are sent again" in line for line in said)
    runs.append(run)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What delivery_log lacks is not waited for: the damage takes it away."""
    monkeypatch.setattr("tests.rig.invariants.check.LOG_PATIENCE_S", 0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM analytics.ad_impressions WHERE event_id = {victim}", {"I1", "I2", "I4"}),
        (f"INSERT INTO analytics.ad_impressions {ROW}", {"I1", "I2", "I4"}),
        ("UPDATE analytics.ad_impressions SET revenue_micros = -1 WHERE event_id = {victim}", {"I1"}),
        ("UPDATE analytics.ad_impressions SET line = line + 60000 WHERE event_id = {victim}", {"I2"}),
        (f"UPDATE analytics.ledger SET lines = lines + 1 WHERE batch_id = (SELECT batch_id FROM ({ROW}) t)", {"I2"}),
        (f"DELETE FROM analytics.delivery_log WHERE txn_id = (SELECT txn_id FROM ({ROW}) t)", {"I4"}),
    ],
)  # fmt: skip
async def test_damage_to_the_warehouse_is_seen(
    stack: LiveStack, runs: list[TrafficRun], contents: Contents, statement: str, expected: set[str]
) -> None:
    """The damage is done in the transaction that judges, and rolled back."""
    sent = runs[0].sent
    victim = next(event_id for event_id, event in sent.events.items()
                  if event.facts.event_type == "ad_impression" and not event.facts.is_bot)  # fmt: skip
    async with ports_of(read_settings(), contents) as ports, ports.warehouse.transaction(force_rollback=True):
        await ports.warehouse.execute(statement.format(victim=f"'{victim}'").encode())
        found = await judge(ports, runs, NOT_ALONE)
    assert expected <= {violation.rule for violation in found}, found


async def test_rows_that_nobody_sent_are_seen(stack: LiveStack, contents: Contents) -> None:
    async with ports_of(read_settings(), contents) as ports:
        found = await judge(ports, [], Terms())
    assert any("rows of events that nobody sent" in violation.text for violation in found)
    assert {violation.rule for violation in found} == {"I1"}


async def test_damage_to_raw_files_and_data_is_seen(stack: LiveStack, runs: list[TrafficRun], contents: Contents) -> None:
    async with ports_of(read_settings(), contents) as ports:
        (raw,) = [info.key async for info in ports.objects.list("raw/", limit=1)]
        (data,) = [info.key async for info in ports.objects.list("data/page_views/", limit=1)]
        kept = {key: await ports.objects.get(key) for key in (raw, data)}
        try:
            await ports.objects.delete([raw])
            await ports.objects.put(data, kept[data] + b"!")
            found = await judge(ports, runs, NOT_ALONE)
        finally:
            for key, body in kept.items():
                await ports.objects.put(key, body)
        again = await judge(ports, runs, NOT_ALONE)
    assert any(violation.rule == "I3" and raw in violation.text for violation in found)
    assert any(violation.rule == "I4" and "bytes of" in violation.text and data in violation.text for violation in found)
    assert again == [], again
    assert all(isinstance(violation, Violation) for violation in found)


def test_replay_as_a_command(stack: LiveStack, runs: list[TrafficRun]) -> None:
    batches = list(runs[0].sent.acknowledged_at_ms)[:2]
    done = stack.instream("replay", *batches, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [one["batch_id"] for one in answer["replayed"]] == sorted(batches)
    assert all(one["attempt"] >= 2 for one in answer["replayed"])  # the check above sent them once already
    done = stack.instream("replay", "no-such-batch")
    assert done.returncode == 1
    assert "unknown: 1: no-such-batch" in done.stdout
    assert stack.instream("replay").returncode == 2
    assert stack.instream("replay", "--all", batches[0]).returncode == 2
