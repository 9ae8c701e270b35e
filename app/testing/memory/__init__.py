"""In-memory twins of the adapters: the same ports, for tests and simulations, with hooks to make them fail."""

from app.testing.memory.hooks import Hook
from app.testing.memory.kafka import MemoryGroup, MemoryLogs
from app.testing.memory.kinesis import MemoryBlockStream
from app.testing.memory.known_events import MemoryKnownEvents
from app.testing.memory.loaded_fates import MemoryFates
from app.testing.memory.loaded_ledger import MemoryLoadedLedger
from app.testing.memory.loaded_rows import MemoryLoadedRows
from app.testing.memory.registry import MemoryRegistry
from app.testing.memory.s3 import MemoryObjectStore
from app.testing.memory.warehouse import MemoryWarehouse
from app.testing.memory.warehouse_session import MemorySession

__all__ = [
    "Hook",
    "MemoryBlockStream",
    "MemoryFates",
    "MemoryGroup",
    "MemoryKnownEvents",
    "MemoryLoadedLedger",
    "MemoryLoadedRows",
    "MemoryLogs",
    "MemoryObjectStore",
    "MemoryRegistry",
    "MemorySession",
    "MemoryWarehouse",
]
