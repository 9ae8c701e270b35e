"""In-memory twins of the adapters: the same ports, for tests and simulations, with hooks to make them fail."""

from app.adapters.memory.hooks import Hook
from app.adapters.memory.kafka import MemoryGroup, MemoryLogs
from app.adapters.memory.kinesis import MemoryBlockStream
from app.adapters.memory.loaded_ledger import MemoryLoadedLedger
from app.adapters.memory.registry import MemoryRegistry
from app.adapters.memory.s3 import MemoryObjectStore
from app.adapters.memory.warehouse import MemoryWarehouse
from app.adapters.memory.warehouse_session import MemorySession

__all__ = [
    "Hook",
    "MemoryBlockStream",
    "MemoryGroup",
    "MemoryLoadedLedger",
    "MemoryLogs",
    "MemoryObjectStore",
    "MemoryRegistry",
    "MemorySession",
    "MemoryWarehouse",
]
