"""The folder for the hundreds of small databases of property tests: in memory if the system offers it, else the usual
place."""

import os
import shutil
from typing import Final

_MEMORY: Final = "/dev/shm"
_ENOUGH_BYTES: Final = 256 * 1024 * 1024

QUICK_DISK: Final = _MEMORY if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES else None
"""For `tempfile.TemporaryDirectory(dir=...)`. Opening a RocksDB waits for the disk a dozen times: it proves nothing here."""
