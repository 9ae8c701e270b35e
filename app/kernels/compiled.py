"""How a kernel is compiled: once by `make setup`, and kept on disk.

A kernel names the types of its arguments, so it is compiled, or read from the cache, when its module is imported; no call
compiles anything. The cache lies beside the modules, or in NUMBA_CACHE_DIR. Numba reads no cache that it cannot write, so a
process that cannot write there works with a copy of its own. Numba marks each entry with the processor's kind, and compiles
again on another one; it does not see that a part in another file has changed, so the cache of each state of this package has
a folder of its own.

A kernel makes no check of bounds: its docstring says what its caller guarantees. NUMBA_BOUNDSCHECK=1 adds the checks.
"""

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
from numba.core import config

_PACKAGE: Final = Path(__file__).parent
_PREFIX: Final = "kernels-"
Function = TypeVar("Function", bound=Callable[..., Any])


def cache_folder() -> Path:
    """The folder of the compiled kernels of this state of the package."""
    state = hashlib.sha256(f"{numba.__version__} {os.environ.get('NUMBA_BOUNDSCHECK', '')}".encode())
    for source in sorted(_PACKAGE.rglob("*.py")):
        state.update(source.read_bytes())
    home = Path(os.environ["NUMBA_CACHE_DIR"]) if os.environ.get("NUMBA_CACHE_DIR") else _PACKAGE / "__pycache__"
    return home / f"{_PREFIX}{state.hexdigest()[:16]}"


def stale_folders() -> list[Path]:
    """The folders of earlier states of the package, beside this state's."""
    current = cache_folder()
    return sorted(folder for folder in current.parent.glob(f"{_PREFIX}*") if folder != current)


def writable(folder: Path) -> Path:
    """`folder`, made if it is missing; a copy for this process alone if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        own = Path(tempfile.mkdtemp(prefix=_PREFIX))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        if folder.is_dir():
            shutil.copytree(folder, own, dirs_exist_ok=True)
        own.chmod(0o700)  # nobody else puts code there
        return own
    return folder


setattr(config, "CACHE_DIR", str(writable(cache_folder())))  # noqa: B010  # numba does not declare it


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
