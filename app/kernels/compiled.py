"""How a kernel is compiled: once by `make setup`, and kept on disk (`app.kernels.cache`).

A kernel names the types of its arguments, so it is compiled, or read from the cache, when its module is imported; no call
compiles anything.

A kernel makes no check of bounds: its docstring says what its caller guarantees. NUMBA_BOUNDSCHECK=1 adds the checks.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core import config

from app.kernels.cache import KernelCache

Function = TypeVar("Function", bound=Callable[..., Any])

# Numba imports the class by its name.
setattr(config, "CACHE_LOCATOR_CLASSES", f"{KernelCache.__module__}.{KernelCache.__qualname__}")  # noqa: B010


def kernel(*signatures: str) -> Callable[[Function], Function]:
    """A function that Python calls: compiled for `signatures`, e.g. `"int64(uint8[::1], int64)"`; it runs without the GIL.

    Division by zero gives infinity, as in numpy. The uncompiled function is its attribute `py_func`.
    """
    compiled: Any = numba.njit(list(signatures), cache=True, nogil=True, error_model="numpy")
    return cast(Callable[[Function], Function], compiled)


def part(function: Function) -> Function:
    """A piece of kernels, compiled into each of them where it is called; it needs no signature."""
    inlined: Any = numba.njit(inline="always", error_model="numpy")
    return cast(Function, inlined(function))
