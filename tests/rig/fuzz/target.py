"""A target: a reader of bytes, samples of what it reads, and the errors that it declares."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Target(NamedTuple):
    """One reader under attack."""

    name: str
    samples: Sequence[bytes]
    """Bytes that it reads without an error; cases are made by damage to them."""
    read: Callable[[bytes], Any]
    """Reads any bytes. It returns anything, or raises one of `errors`."""
    errors: tuple[type[BaseException], ...] = ()
    """Its declared errors; every other exception is a finding."""
    weight: int = 1
    """Its share of the time."""


class Wrong(Exception):  # a finding, and no error of the product
    """A reader returned something that contradicts its promise."""
