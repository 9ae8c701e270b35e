"""The crash points of a process: armed, passed, noted, and around every call of an adapter."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from app.adapters.s3 import S3ObjectStore
from app.apps import new_app
from app.core.formats.flows import PAGE_VIEWS
from app.crash.catalogue import AFTER, BEFORE
from app.crash.points import EXIT_CODE, Armed, CrashPoints, PlanFile
from app.crash.proxies import around, between, connecting
from app.errors import ConfigurationError
from app.local.stack.keeper import AT_ONCE, Deaths
from app.settings import Settings
from app.shell import crash_transport
from app.shell.ports import Ports
from app.shell.transport import Transport
from app.testing.memory.s3 import MemoryObjectStore


def test_turned_off_the_adapter_itself_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = MemoryObjectStore()
    assert around(None, "s3", store) is store
    assert type(vars(Ports(Settings()).objects)["_inner"]) is S3ObjectStore, "behind the notes for /ready"
    app = new_app("sink", Settings())
    assert app.ports.points is None
    assert type(app._new_transport()) is Transport

    async def connect() -> MemoryObjectStore:
        return store

    assert connecting(None, "s3", connect) is connect


class EndOfProcessError(Exception):
    pass


class World:
    """A plan, and processes that come and go."""

    def __init__(self, folder: Path) -> None:
        self.plan = PlanFile(folder / "plan")
        self.codes: list[int] = []

    def process(self, role: str = "sink") -> CrashPoints:
        def end(code: int) -> None:
            self.codes.append(code)
            raise EndOfProcessError

        return CrashPoints(role, self.plan, end)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_process_ends_as_often_as_it_is_to_and_then_lives(world: World) -> None:
    world.plan.arm([Armed("one", "sink.s3.put.jobdata.after", 2)])
    for _ in range(2):
        points = world.process()
        points.reach("s3.put.jobdata", BEFORE)
        with pytest.raises(EndOfProcessError):
            points.reach("s3.put.jobdata", AFTER)
    world.process().reach("s3.put.jobdata", AFTER)
    assert world.codes == [EXIT_CODE, EXIT_CODE]
    assert [(death.armed_id, death.point) for death in world.plan.deaths()] == [("one", "sink.s3.put.jobdata.after")] * 2


def test_a_point_is_armed_and_disarmed_while_the_process_runs(world: World) -> None:
    points = world.process()
    points.reach("s3.put.jobdata", AFTER)
    world.plan.arm([Armed("one", "sink.s3.put.jobdata.after", 5)])
    with pytest.raises(EndOfProcessError):
        points.reach("s3.put.jobdata", AFTER)
    world.plan.arm([])
    points.reach("s3.put.jobdata", AFTER)


def test_another_role_and_a_spare_pass_by(world: World) -> None:
    world.plan.arm([Armed("one", "collector.s3.put.raw.before")])
    spare = world.process("collector")
    spare.is_awake = False
    spare.reach("s3.put.raw", BEFORE)
    spare.is_awake = True
    with pytest.raises(EndOfProcessError):
        spare.reach("s3.put.raw", BEFORE)
    world.process("audit").reach("s3.get.raw", BEFORE)


def test_a_call_that_is_not_listed_is_refused_and_noted(world: World) -> None:
    with pytest.raises(RuntimeError, match=r"sink calls s3\.head\.raw, which has no crash points"):
        world.process().reach("s3.head.raw", BEFORE)
    assert world.plan.unlisted() == {"sink.s3.head.raw"}


def test_an_unknown_point_is_refused_with_the_remedy(world: World) -> None:
    with pytest.raises(ConfigurationError, match="`make crash-points` lists them"):
        world.plan.arm([Armed("one", "sink.s3.pet.jobdata.after")])
    assert not world.plan.path.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b'[{"id": "1", "point": "sink.tea.before"}]', "is no crash point"), (b"sink", "INSTREAM_CRASH_PLAN: .* is no plan")],
)
def test_a_worker_refuses_a_plan_that_it_cannot_follow(content: bytes, reason: str, world: World) -> None:
    world.plan.path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=reason):
        new_app("sink", Settings(crash_plan=world.plan.path))


def test_turned_on_the_driver_makes_clients_that_pass_the_points(world: World) -> None:
    """A driver that makes plain ones would pass no point of Kafka, and every test of them would wait for nothing."""
    world.plan.arm([])
    app = new_app("sink", Settings(crash_plan=world.plan.path))
    producer, consumer = app.producer, app.consumer
    thread = consumer._new_consumer_thread()
    assert [type(client) for client in (app.transport, producer, consumer, thread)] == [
        crash_transport.CrashTransport, crash_transport.CrashProducer, crash_transport.CrashConsumer,
        crash_transport.CrashConsumerThread,
    ]  # fmt: skip
    assert all(client._points is app.ports.points for client in (producer, consumer, thread))


def test_what_is_reached_is_noted_once_a_process(world: World) -> None:
    points = world.process()
    for _ in range(3):
        points.reach("logs.bounds", BEFORE)
    assert world.plan.path.with_name("plan.reached").read_text() == "sink.logs.bounds.before\n"
    assert world.plan.reached() == {"sink.logs.bounds.before"}


class Seen(CrashPoints):
    """Notes where it was, whatever the catalogue says."""

    def __init__(self, role: str, plan: PlanFile) -> None:
        super().__init__(role, plan)
        self.seen: list[str] = []

    def reach(self, call: str, side: str) -> None:
        self.seen.append(f"{call}.{side}")


class Session:
    closed = False

    async def copy(self, flow: Any, manifest_url: str) -> None:
        raise ValueError(manifest_url)


async def use_everything(store: Any, seen: list[str]) -> None:
    await store.put("jobdata/1-0-1-aa/page_views.csv", b"x")
    seen.append("stored")
    await store.copy("jobdata/1-0-1-aa/page_views.csv", "data/page_views/dt=1/1-0-1-aa.csv")
    await store.put("manifests/dt=1/hour=1/1-0-1-aa/ready.json", b"{}")
    await store.delete(["jobdata/1-0-1-aa/page_views.csv"])
    assert [info.key async for info in store.list("data/")] == ["data/page_views/dt=1/1-0-1-aa.csv"]
    assert store.bucket == MemoryObjectStore().bucket


async def test_the_points_are_around_each_call_and_named_by_what_it_touches(world: World) -> None:
    points = Seen("sink", world.plan)
    await use_everything(around(points, "s3", MemoryObjectStore()), points.seen)
    assert points.seen == [
        "s3.put.jobdata.before", "s3.put.jobdata.after", "stored", "s3.copy.data.before", "s3.copy.data.after",
        "s3.put.ready.before", "s3.put.ready.after", "s3.delete.jobdata.before", "s3.delete.jobdata.after",
        "s3.list.data.before", "s3.list.data.after",
    ]  # fmt: skip


async def test_a_call_that_fails_does_not_come_to_the_point_behind_it(world: World) -> None:
    points = Seen("delivery", world.plan)
    with pytest.raises(ValueError, match="url"):
        await around(points, "warehouse", Session()).copy(PAGE_VIEWS, "url")
    assert points.seen == ["warehouse.copy.page_views.before"]


async def test_a_method_without_a_point_cannot_be_called(world: World) -> None:
    class Newer(MemoryObjectStore):
        async def rename(self, key: str) -> None:
            """A call that nobody listed."""

    with pytest.raises(AttributeError, match=r"s3\.rename is not in app\.crash\.proxies\.PORTS"):
        await around(world.process(), "s3", Newer()).rename("key")


async def test_connections_and_single_calls_have_points_too(world: World) -> None:
    points = Seen("delivery", world.plan)

    async def connect() -> Session:
        return Session()

    session = await connecting(points, "warehouse", connect)()
    assert not session.closed

    async def forty_two() -> int:
        return 42

    assert await between(points, "kafka.lags", forty_two()) == 42
    assert points.seen == ["warehouse.connect.before", "warehouse.connect.after", "kafka.lags.before", "kafka.lags.after"]


async def test_a_listing_that_is_left_early_does_not_come_to_its_end(world: World) -> None:
    store, points = MemoryObjectStore(), Seen("etl", world.plan)
    for n in range(3):
        await store.put(f"transactions/1/0/{n}.json", b"{}")
    listing: Callable[[str], AsyncIterator[Any]] = around(points, "s3", store).list
    async for _ in listing("transactions/"):
        break
    assert points.seen == ["s3.list.transactions.before"]


def test_a_death_at_a_point_does_not_slow_the_next_start() -> None:
    deaths = Deaths()
    assert [deaths.delay_after(1.0, EXIT_CODE) for _ in range(10)] == [0.0] * 10
    assert [deaths.delay_after(1.0, 1) for _ in range(AT_ONCE + 1)] == [0.0] * AT_ONCE + [1.0]
