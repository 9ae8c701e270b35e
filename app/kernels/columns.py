"""The kinds of columns that the writers of files know, and the times that a text file can hold."""

from typing import Final

TEXT: Final = 0
INTEGER: Final = 1
TIMESTAMP: Final = 2
"""Milliseconds since the epoch, UTC."""
BOOLEAN: Final = 3
"""A cell of 0 or 1."""

FIRST_MS: Final = -62_135_596_800_000
"""0001-01-01 00:00:00 UTC, the first time whose year has four digits and is not 0."""
LAST_MS: Final = 253_402_300_799_999
"""9999-12-31 23:59:59.999 UTC."""
