"""Histories in which two versions run mixed at every stage (rule E10), under the faults of every other history.

The oracle is the next version's, for it reads everything. The older version decides some rows otherwise: which process wrote
the step that took an event in, and which the step that emitted its row, is read from the logs, and `as_decided` makes the
oracle's row theirs. In the documented order nobody ever waits; in a wrong order waiting is all that may happen.
"""

import asyncio
import json
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import polars as pl

from app.core.audit.reconcile import LedgerLines
from app.core.formats.block import decode_header, frame_of, is_control, open_frame
from app.errors import FormatInvalid, FrameInvalid
from tests.simulation.history import History, Narrate, play
from tests.simulation.invariants import declares_gap
from tests.simulation.newer_traffic import FIELD, NewerTraffic
from tests.simulation.process import Process
from tests.simulation.rollout import NEWER, OLDER, Rollout
from tests.simulation.versions import ItemsOfVersion, Version, WorldOfVersion, sharing
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.world import World
from tests.worlds import recipes

FAULTS_S: Final = 90.0
UP_S, DOWN_S = 110.0, 220.0
"""How long clients send during the way up, and during a way back in order."""
COLUMN: Final = "path_depth"
"""A column that the recipe "Add a column" computes when a row is emitted."""

OF_UPGRADES: Final = (
    "waits for an upgrade", "rows of the new flow", "values of the new field", "values of the new column",
    "new events that an older collector rejected", "up in order", "up in a wrong order", "down in order",
    "down in a wrong order",
)  # fmt: skip
"""What a history counts besides the faults."""


class UpgradeWorld(World):
    """A world whose slots run one of two versions."""

    patience_s = 900.0
    dedup_windows_s = (3600,)

    def __init__(self, versions: tuple[Version, Version], loop: VirtualLoop, seed: int, narrate: Narrate) -> None:
        super().__init__(loop, seed, narrate)
        self._versions = {version.name: version for version in versions}
        self._items: dict[str, Any] = {}
        self._authors: dict[Any, list[str]] = {}
        older = self._versions[OLDER]
        self.registry = sharing(type(self.registry), self.registry, _items=ItemsOfVersion(older, self._items))
        self.views = {
            name: WorldOfVersion(self, version, self._items, self._authors) for name, version in self._versions.items()
        }
        errors = [version["app.errors"] for version in versions]
        self.crashes = tuple(getattr(e, kind.__name__) for e in errors for kind in World.crashes)
        self.refusals = tuple(e.RequestRejected for e in errors)
        self.rollout = Rollout(self)
        self.traffic: NewerTraffic = NewerTraffic(self, UP_S + DOWN_S * (self.rollout.down == "in order"))
        self._target = dict.fromkeys(("collector", "bridge", "etl", "sink", "delivery", "audit"), OLDER)
        self._held: dict[str, str] = {}
        """Slot -> the version that it keeps until its turn comes."""
        self._running: dict[str, str] = {}
        self.waits: list[str] = []

    # --- what the rollout asks

    def slots(self, role: str) -> list[str]:
        """The slots of a role that have a process, or soon will."""
        alive = {slot for slot, process in self.processes.items() if process.alive}
        return sorted(slot for slot in self.wanted | alive if slot.startswith(f"{role}-"))

    def hold(self, role: str, version: str) -> None:
        """Start new slots of a role with a version; those that there are keep theirs until they are let go."""
        for slot in self.slots(role):
            self._held.setdefault(slot, self._target[role])
        self._target[role] = version

    def let_go(self, place: str) -> None:
        """Let a slot, or every slot of a role, start with the role's version from now on."""
        for slot in [slot for slot in self._held if slot == place or slot.startswith(f"{place}-")]:
            del self._held[slot]

    def version_of_process(self, name: str) -> str:
        return self._running[name]

    def runs_other(self, slot: str, version: str) -> bool:
        """Whether a slot's process lives and is not of a version."""
        process = self.processes.get(slot)
        return process is not None and process.alive and self._running[process.name] != version

    def migrate(self) -> None:
        """Do what `instream init` of the next version does to the warehouse: its tables and columns are there."""
        newer, warehouse = self._versions[NEWER], self.warehouse
        found_as = newer["app.core.delivery.schema_found"].found_as
        for table in newer["app.core.formats.tables"].TABLES:
            warehouse.tables[table.name] = tuple(map(found_as, table.columns))
        outputs = {flow.name: () for flow in newer["app.core.formats.flows"].OUTPUTS}
        tables = {**outputs, **warehouse.committed.tables}
        warehouse.committed = msgspec.structs.replace(warehouse.committed, tables=tables)
        self.tell("rollout", "instream init")

    def ledger_of(self, batch_ids: Container[str]) -> dict[str, list[LedgerLines]]:
        """The warehouse's ledger of these batches."""
        entries: dict[str, list[LedgerLines]] = {}
        for row in self.warehouse.rows("ledger"):
            if row["batch_id"] in batch_ids:
                entries.setdefault(row["batch_id"], []).append(LedgerLines(row["outcome"], row["lines"], row["line_set"]))
        return entries

    # --- the history

    def _new_process(self, slot: str, incarnation: int) -> Process:
        role = slot.split("-", maxsplit=1)[0]
        name = self._held.get(slot, self._target[role])
        process: Process = self._versions[name]["tests.simulation.process"].Process(
            self.views[name], role, slot, incarnation
        )
        self._running[process.name] = name
        return process

    def _new_role(self, process: Process) -> Any:
        makers = self._versions[self._running[process.name]]["tests.simulation.roles"].MAKERS
        return makers[process.role](process)

    async def _faulty_time(self) -> None:
        self.spawn(self.rollout.run())
        await asyncio.sleep(FAULTS_S)

    def _unsettled(self) -> str | None:
        return super()._unsettled() if self.rollout.done else "the rollout goes on"

    def wait_begins(self, place: str, reason: str) -> None:
        """A worker says that it waits for its upgrade."""
        self.tell("E10", f"waits at {place}: {reason}")
        self.waits.append(reason)
        self.faults.counts["waits for an upgrade"] += 1

    # --- what must hold

    async def check(self) -> None:
        """Every invariant, by the next version's catalogue and oracle."""
        if self.rollout.in_order and self.waits:
            self.violation("E10", f"the order is right and somebody waits: {self.waits[0]}")
        await self._versions[NEWER]["tests.simulation.invariants"].check(self.views[NEWER])
        self._count_what_was_new()

    def as_decided(self, flow: str, row: dict[str, Any]) -> dict[str, Any]:
        """The row as the versions write it that took its event in and that emitted it."""
        if flow != "page_views":
            return row
        event_id = row["event_id"]
        if self._emitted_by.get(event_id) == OLDER:
            row = {name: value for name, value in row.items() if name != COLUMN}
        if self._taken_in_by.get(event_id) == OLDER and row.get(FIELD) is not None:
            properties = json.loads(row["properties"] or "{}")
            if FIELD not in properties:
                properties[FIELD] = row[FIELD]
            row = {**row, FIELD: None, "properties": json.dumps(properties, separators=(",", ":"), ensure_ascii=False)}
        return row

    @cached_property
    def _emitted_by(self) -> dict[str, str]:
        """Page view -> the version of the ETL that emitted its row."""
        found: dict[str, str] = {}
        for author, step in self._steps():
            if (packed := step.rows.get("page_views")) is not None:
                found |= dict.fromkeys(pl.read_ipc_stream(packed)["event_id"].to_list(), author)
        return found

    @cached_property
    def _taken_in_by(self) -> dict[str, str]:
        """Event -> the version of the ETL that took its first copy in."""
        found: dict[str, str] = {}
        for author, step in self._steps():
            if declares_gap(step):
                continue
            log = self.logs.messages.get((self.topics.blocks.name, step.partition), [])
            for message in log[step.source_first : step.source_last + 1]:
                for event_id in _events_of(message):
                    found.setdefault(event_id, author)
        return found

    def _steps(self) -> Iterator[tuple[str, Any]]:
        for partition in range(self.settings.partitions):
            authors = self._authors.get((self.topics.rows.name, partition), [])
            for offset, step in self.steps_by_offset(partition).items():
                yield authors[offset], step

    def _count_what_was_new(self) -> None:
        rows = self.warehouse.rows("page_views")
        counts = self.faults.counts
        counts["rows of the new flow"] = len(self.warehouse.rows("video_starts"))
        counts["values of the new field"] = sum(row.get(FIELD) is not None for row in rows)
        counts["values of the new column"] = sum(row.get(COLUMN) is not None for row in rows)
        counts["new events that an older collector rejected"] = sum(
            row["event_id"] in self.traffic.refusable for row in self.warehouse.rows("rejected")
        )
        for name, is_so in (
            ("up in order", self.rollout.up_in_order), ("up in a wrong order", not self.rollout.up_in_order),
            ("down in order", self.rollout.down == "in order"), ("down in a wrong order", self.rollout.down == "wrong"),
        ):  # fmt: skip
            counts[name] = int(is_so)


def _events_of(message: bytes) -> list[str]:
    """The ids of the events in a message of `blocks`; none if nobody can read it."""
    if is_control(message):
        return []
    try:
        decode_header(message)
        lines = open_frame(frame_of(message)).split(b"\n")[:-1]
    except (FormatInvalid, FrameInvalid):
        return []
    events = map(json.loads, lines)
    return [event["event_id"] for event in events if "malformed" not in event]


@contextmanager
def next_version_folder() -> Iterator[Path]:
    """A folder with the next version: a column, a field, an event type and a flow more. It is deleted afterwards."""
    with TemporaryDirectory(prefix="instream-next-") as folder:
        yield recipes.next_version(Path(folder), recipes.COLUMN, recipes.FIELD, recipes.FLOW)


class Heard:
    """In place of the log of `app.shell.upgrade`: what it says of a wait goes to the world."""

    def __init__(self, told: Callable[[str, str], None]) -> None:
        self._told = told

    def error(self, _: str, *, place: str, reason: str, alarm: bool) -> None:
        self._told(place, reason)


@contextmanager
def hearing(versions: tuple[Version, Version], told: Callable[[str, str], None]) -> Iterator[None]:
    """Hear of every wait for an upgrade, in either version."""
    modules = [version["app.shell.upgrade"] for version in versions]
    logs = [module.log for module in modules]
    for module in modules:
        module.log = Heard(told)
    try:
        yield
    finally:
        for module, log in zip(modules, logs, strict=True):
            module.log = log


def play_upgrade(versions: tuple[Version, Version], seed: int, narrate: Narrate = None) -> History:
    """Play the history of a seed with this version and the next one."""
    worlds: list[UpgradeWorld] = []

    def new_world(loop: VirtualLoop, seed: int, narrate: Narrate) -> UpgradeWorld:
        worlds.append(UpgradeWorld(versions, loop, seed, narrate))
        return worlds[0]

    async def check(_: World) -> None:
        await worlds[0].check()

    def told(place: str, reason: str) -> None:
        worlds[0].wait_begins(place, reason)

    with hearing(versions, told):
        return play(seed, narrate, new_world, check)
