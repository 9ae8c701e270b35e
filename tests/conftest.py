"""Fixtures that tests of several folders share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from support_warehouse import warehouse, warehouse_stack

__all__ = ["warehouse", "warehouse_stack"]
