"""Crash points: none of a role's calls is without its two, and turned off they are not there at all."""

import ast
import inspect
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.adapters.ports import BlockStream, Logs, ObjectStore, Registry
from app.adapters.s3 import S3ObjectStore
from app.adapters.warehouse_port import LoadedLedger, WarehouseSession
from app.apps import new_app
from app.core.formats import checkpoint
from app.core.formats.block import End, WatermarkMessage, encode_control
from app.core.formats.checkpoint import Barrier, Checkpoint
from app.core.formats.flows import PAGE_VIEWS
from app.crash.catalogue import AFTER, BEFORE, CALLS, COMMANDS_ONLY, POINTS, read_point
from app.crash.points import EXIT_CODE, Armed, CrashPoints, PlanFile
from app.crash.proxies import PORTS, around, between, connecting
from app.errors import ConfigurationError
from app.local.stack.keeper import AT_ONCE, Deaths
from app.settings import Settings
from app.shell import crash_transport
from app.shell.crash_transport import kind_on_blocks, kind_on_checkpoints, kinds_of
from app.shell.ports import Ports
from app.shell.transport import Transport
from app.testing.memory.s3 import MemoryObjectStore
from app.topics import topics_of
from tables.store.engine import Engine
from tables.store.partition_store import PartitionStore

ROOT = Path(__file__).parents[3]
PROTOCOLS: dict[str, type] = {
    "s3": ObjectStore, "registry": Registry, "kinesis": BlockStream, "logs": Logs, "warehouse": WarehouseSession,
    "ledger": LoadedLedger, "rocksdb": Engine, "store": PartitionStore,
}  # fmt: skip
OUTSIDE_PORTS = {
    "kafka.topics", "kafka.poll", "kafka.commit", "kafka.earliest", "kafka.highwaters", "kafka.lags", "http.answer",
    "warehouse.connect",
}  # fmt: skip
"""Calls that no port's method makes; sends have their points by topic."""


def names_of(protocol: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(protocol) if not name.startswith("_")}


# --- the catalogue is whole


@pytest.mark.parametrize("port", PROTOCOLS)
def test_every_method_of_a_port_is_a_call_or_known_to_ask_nobody(port: str) -> None:
    """A method that is added to a port fails here until it is said what it is."""
    known = PORTS[port]
    assert names_of(PROTOCOLS[port]) - {"close", "wipe"} <= known.calls.keys() | known.quiet
    assert not known.calls.keys() & known.quiet
    assert known.calls.keys() <= names_of(PROTOCOLS[port])


def test_every_port_has_its_protocol() -> None:
    assert PORTS.keys() == PROTOCOLS.keys()


def test_every_call_of_a_port_is_made_by_a_role_or_by_commands_only() -> None:
    made = {call for calls in CALLS.values() for call in calls}
    for port, known in PORTS.items():
        for method in known.calls:
            name = f"{port}.{method}"
            is_made = any(call == name or call.startswith(f"{name}.") for call in made)
            assert is_made != (name in COMMANDS_ONLY), name


def test_every_call_in_the_catalogue_is_one_that_there_is() -> None:
    for calls in CALLS.values():
        assert len(set(calls)) == len(calls)
        for call in calls:
            if call in OUTSIDE_PORTS or call.startswith("kafka.send."):
                continue
            port, method = call.split(".")[:2]
            assert method in PORTS[port].calls, call


def test_every_topic_that_is_written_to_has_its_points() -> None:
    """`audit`, `articles` and `campaigns` are written to by nobody of ours."""
    settings = Settings()
    written = {spec.name for spec in topics_of(settings)} - {"articles", "campaigns", topics_of(settings).audit.name}
    assert kinds_of(settings).keys() == written


def test_messages_are_told_apart() -> None:
    assert kind_on_blocks(encode_control(WatermarkMessage({}, {}))) == "tick"
    assert kind_on_blocks(encode_control(End("shard"))) == "end"
    assert kind_on_blocks(b"\x01 a block") == "block"
    kinds = [
        kind_on_checkpoints(checkpoint.encode(m)) for m in (Barrier("t"), Checkpoint("s"), Checkpoint("s", finished=True))
    ]
    assert kinds == ["barrier", "checkpoint", "finished"]


CLIENTS = {"boto3", "botocore", "psycopg", "aiokafka", "rocksdict"}
ADAPTERS = {"app/adapters", "app/bench", "app/local", "app/cli", "app/shell/transport.py", "tables/store/rocksdb.py"}
"""Where clients of services may be used: behind ports, and by what is no role."""


def test_no_role_reaches_outside_but_through_a_port() -> None:
    found = set()
    for folder in ("app", "agents", "tables"):
        for module in (ROOT / folder).rglob("*.py"):
            path = module.relative_to(ROOT).as_posix()
            if any(path == place or path.startswith(f"{place}/") for place in ADAPTERS):
                continue
            for node in ast.walk(ast.parse(module.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                found |= {(path, name) for name in names if name.split(".")[0] in CLIENTS}
    assert not found


# --- turned off


def test_turned_off_the_adapter_itself_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store = MemoryObjectStore()
    assert around(None, "s3", store) is store
    assert type(Ports(Settings()).objects) is S3ObjectStore
    app = new_app("sink", Settings())
    assert app.ports.points is None
    assert type(app._new_transport()) is Transport

    async def connect() -> MemoryObjectStore:
        return store

    assert connecting(None, "s3", connect) is connect


# --- turned on


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
        crash_transport.Transport, crash_transport.Producer, crash_transport.Consumer, crash_transport.ConsumerThread,
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


# --- the stack around them


def test_a_death_at_a_point_does_not_slow_the_next_start() -> None:
    deaths = Deaths()
    assert [deaths.delay_after(1.0, EXIT_CODE) for _ in range(10)] == [0.0] * 10
    assert [deaths.delay_after(1.0, 1) for _ in range(AT_ONCE + 1)] == [0.0] * AT_ONCE + [1.0]


def test_points_are_read_by_their_names() -> None:
    assert [read_point(str(point)) for point in POINTS] == list(POINTS)
    assert msgspec.json.decode(msgspec.json.encode(Armed("1", str(POINTS[0]))), type=Armed).times == 1
