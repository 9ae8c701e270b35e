"""Two versions of the code in one Python process: each simulated process lives on the modules of its own version.

A version is a dictionary of modules: all of `app`, `agents`, `tables` and `tests` that the simulated roles import. This
version's modules are those of the interpreter. The next version's come from a folder: while they are imported, this
version's are out of `sys.modules` and the folder is first on the path; afterwards this version's stand there again. Hence:

- A simulated process, its role, ports and clients all come from one version. Their code sees that version's classes only.
- Nothing that a role runs may import inside a function, because it would get this version's module. `lazy_imports` looks.
- Bytes cross between the versions: Kafka, S3, Kinesis, the items of the registry, RocksDB. The twins of the services keep
  one state. Each version has twins of its own classes over that state (`sharing`), so that a caller gets its own version's
  errors and values. Three things are more than bytes and are translated: the registry's items, the lock of the warehouse,
  and the files that the warehouse has decoded.
- The groups of the broker, the faults, the clock and the clients are one for both versions, reached by plain attributes.
- Prometheus refuses a metric that is registered twice, so the next version's modules have a registry of their own.
"""

import ast
import importlib
import sys
from collections.abc import Iterator, MutableMapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import prometheus_client

if TYPE_CHECKING:
    from tests.simulation.world import World

OURS: Final = ("app", "agents", "tables", "tests")
ENTRANCES: Final = (
    "app.core.delivery.schema_found", "app.core.formats.tables", "app.errors", "app.settings", "app.shell.upgrade",
    "app.testing.memory", "app.testing.memory.copied_files", "app.topics", "tests.simulation.invariants",
    "tests.simulation.kafka_broker", "tests.simulation.process", "tests.simulation.roles",
)  # fmt: skip
ONE_FOR_ALL: Final = ("tests.simulation.faults", "tests.simulation.virtual_loop")
"""Modules that both versions share: they know nothing of the product, and their classes cross between the versions."""


class Version:
    """A version's modules, by name."""

    def __init__(self, name: str, modules: dict[str, ModuleType]) -> None:
        self.name = name
        self._modules = modules

    def __getitem__(self, module: str) -> Any:
        return self._modules[module]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __repr__(self) -> str:
        return self.name


def this_version() -> Version:
    """The modules of the interpreter."""
    for name in ENTRANCES:
        importlib.import_module(name)
    return Version("older", _imported())


def next_version_in(folder: Path) -> Version:
    """The version in a folder; this version's modules are untouched."""
    this_version()
    kept = _imported()
    registry = prometheus_client.REGISTRY
    registered = registry.register
    for name in kept.keys() - set(ONE_FOR_ALL):
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    registry.register = prometheus_client.CollectorRegistry().register  # type: ignore[method-assign]
    try:
        for name in ENTRANCES:
            importlib.import_module(name)
        return Version("newer", _imported())
    finally:
        registry.register = registered  # type: ignore[method-assign]
        sys.path.remove(str(folder))
        for name in _imported():
            del sys.modules[name]
        sys.modules.update(kept)
        importlib.invalidate_caches()


@lru_cache(maxsize=1)
def both_versions(folder: Path) -> tuple[Version, Version]:
    """This version and the one in a folder."""
    return this_version(), next_version_in(folder)


def _imported() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in OURS}


def lazy_imports(version: Version) -> list[str]:
    """Imports of our modules inside functions, `module:line`; types that only a checker needs are none."""
    found = []
    for name in version:
        file = version[name].__file__
        for scope in ast.walk(ast.parse(Path(file).read_text())) if file else ():
            if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
                found += [f"{name}:{node.lineno}" for node in ast.walk(scope) if _imports_ours(node)]
    return found


def _imports_ours(node: ast.AST) -> bool:
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    return any(name.partition(".")[0] in OURS for name in names)


def sharing(kind: type, twin: Any, **own: Any) -> Any:
    """An object of class `kind` over the state of `twin`; of the attributes in `own` (or methods) it has its own."""
    parts = {name: value if callable(value) else property(lambda _, value=value: value) for name, value in own.items()}
    made = type(kind.__name__, (kind,), parts)
    view = object.__new__(made)
    view.__dict__ = twin.__dict__
    return view


class WorldOfVersion:
    """The world as processes of one version meet it: services of their own classes, everything else as it is."""

    def __init__(self, world: "World", version: Version, items: dict[str, Any], authors: dict[Any, list[str]]) -> None:
        """Of the versions' common state: `items` are the registry's, `authors` tells who wrote each message of a log."""
        self._world = world
        memory = version["app.testing.memory"]
        self.settings = version["app.settings"].Settings(**world.given)
        self.topics = version["app.topics"].topics_of(self.settings)
        self.objects = sharing(memory.MemoryObjectStore, world.objects)
        self.registry = sharing(memory.MemoryRegistry, world.registry, _items=ItemsOfVersion(version, items))
        self.stream = sharing(memory.MemoryBlockStream, world.stream)
        logs = version["tests.simulation.kafka_broker"].Logs

        def append(log: Any, topic: str, partition: int, value: bytes) -> int:
            authors.setdefault((topic, partition), []).append(version.name)
            return int(logs.append(log, topic, partition, value))

        self.logs = sharing(logs, world.logs, append=append)
        self.warehouse = sharing(
            memory.MemoryWarehouse, world.warehouse,
            files=version["app.testing.memory.copied_files"].CopiedFiles(self.objects),
            log_lock=LockOfVersion(version["app.errors"].WarehouseError, world.warehouse.log_lock),
        )  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)


class ItemsOfVersion(MutableMapping[str, Any]):
    """The registry's items: kept as the attributes of a table in DynamoDB, read and written by one version's code."""

    def __init__(self, version: Version, items: dict[str, Any]) -> None:
        self._format = version["app.core.formats.registry_item"]
        self._items = items
        self._read: dict[str, tuple[Any, Any]] = {}
        """What was read, with the attributes from which."""

    def __getitem__(self, batch_id: str) -> Any:
        attributes = self._items[batch_id]
        found = self._read.get(batch_id)
        if found is None or found[0] is not attributes:
            self._read[batch_id] = found = (attributes, self._format.decode_item(attributes))
        return found[1]

    def __setitem__(self, batch_id: str, item: Any) -> None:
        self._items[batch_id] = self._format.encode_item(item)

    def __delitem__(self, batch_id: str) -> None:
        del self._items[batch_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class LockOfVersion:
    """The warehouse's lock, with one version's class of error."""

    def __init__(self, error: type[Exception], lock: Any) -> None:
        self._error, self._lock = error, lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)

    async def acquire(self, holder: object, *, exclusive: bool) -> None:
        """Take the lock, or wait for it."""
        try:
            await self._lock.acquire(holder, exclusive=exclusive)
        except Exception as exc:
            if type(exc).__name__ == self._error.__name__:
                raise self._error(exc.sqlstate, exc.message) from exc  # type: ignore[attr-defined]
            raise
