"""Crash points: none of a role's calls is without its two, and turned off they are not there at all."""

import ast
import inspect
from pathlib import Path

import msgspec
import pytest

from app.adapters.ports import BlockStream, Logs, ObjectStore, Registry
from app.adapters.warehouse_port import LoadedLedger, WarehouseSession
from app.core.formats import checkpoint
from app.core.formats.block import End, WatermarkMessage, encode_control
from app.core.formats.checkpoint import Barrier, Checkpoint
from app.crash.catalogue import CALLS, COMMANDS_ONLY, POINTS, read_point
from app.crash.points import Armed
from app.crash.proxies import PORTS
from app.settings import Settings
from app.shell.crash_transport import kind_on_blocks, kind_on_checkpoints, kinds_of
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


# --- turned on


# --- the stack around them


def test_points_are_read_by_their_names() -> None:
    assert [read_point(str(point)) for point in POINTS] == list(POINTS)
    assert msgspec.json.decode(msgspec.json.encode(Armed("1", str(POINTS[0]))), type=Armed).times == 1
