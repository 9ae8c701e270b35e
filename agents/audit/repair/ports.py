"""The ports of a repair: those of the deep audit, and those that change something."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from agents.audit.deep.ports import DeepPorts
from app.adapters.ports import BlockStream
from app.adapters.warehouse_port import Connect, KnownEvents
from app.core.enrich.enrich import Enricher

ReplaceSteps = Callable[[int], Awaitable[Mapping[int, str]]]
"""Replaces the damaged steps of a partition of `rows`. Returns: offset -> why a damaged step there is not replaced; -1 for a
reason that is about all of them."""


class RepairPorts(NamedTuple):
    """Everything that a repair reads and changes."""

    deep: DeepPorts
    connect: Connect
    """Opens a session of the warehouse."""
    stream: BlockStream
    """Kinesis: for batches that are sent again."""
    enricher: Enricher
    """For lines that are decided again."""
    events: KnownEvents
    """The warehouse's events by their ids: likewise."""
    replace_steps: ReplaceSteps
