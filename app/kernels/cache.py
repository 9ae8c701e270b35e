"""Where compiled kernels are kept, and how one is known to be out of date.

Numba's own cache looks at the file of a kernel alone. A kernel contains parts from other files, so here each file has a
digest of itself and of every file of this package that it imports, and a folder named after it. A copy of the code has
the same digests: it finds the kernels of the original if NUMBA_CACHE_DIR names their place. Numba marks each entry with
the processor's kind, and compiles again on another one.
"""

import atexit
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import numba
from numba.core import caching

_PACKAGE: Final = Path(__file__).parent
_IMPORTED: Final = re.compile(r"^from app\.kernels((?:\.\w+)*) import", re.MULTILINE)
_PREFIX: Final = "kernels-"


@cache
def home() -> Path:
    """The place of all folders: beside the code, or NUMBA_CACHE_DIR; a copy for this process alone if it cannot be written.

    Numba reads no cache that it cannot write.
    """
    return writable(Path(os.environ.get("NUMBA_CACHE_DIR") or _PACKAGE / "__pycache__"))


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


def digest_of(file: Path, package: Path = _PACKAGE) -> str:
    """The digest of a source file with all files of the package that it imports, directly or not.

    A file that imports a folder of the package depends on every file in it. NUMBA_BOUNDSCHECK counts too.
    """
    waiting, sources = [file], dict[Path, str]()
    while waiting:
        if (one := waiting.pop()) not in sources:
            sources[one] = one.read_text()
            for found in _IMPORTED.finditer(sources[one]):
                waiting += _files_of(package.joinpath(*found[1].split(".")[1:]))
    state = hashlib.sha256(f"{numba.__version__} {os.environ.get('NUMBA_BOUNDSCHECK', '')}".encode())
    for text in sorted(sources.values()):
        state.update(hashlib.sha256(text.encode()).digest())
    return state.hexdigest()[:16]


def _files_of(module: Path) -> Iterator[Path]:
    if module.is_dir():
        yield from module.rglob("*.py")
    else:
        yield module.with_suffix(".py")


@cache
def folder_name(file: Path) -> str:
    """The name of the folder with the compiled kernels of a source file."""
    return f"{_PREFIX}{file.stem}-{digest_of(file)}"


def stale_folders() -> list[Path]:
    """The folders that belong to no file of the package as it is now."""
    current = {folder_name(file) for file in _PACKAGE.rglob("*.py")}
    return sorted(folder for folder in home().glob(f"{_PREFIX}*") if folder.name not in current)


class KernelCache(cast(Any, caching)._CacheLocator):  # type: ignore[misc]  # numba asks for a class of this kind
    """The place of one function in the cache, as numba asks for it."""

    def __init__(self, function: Callable[..., Any], file: Path) -> None:
        self._line = function.__code__.co_firstlineno
        self._folder = home() / folder_name(file)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "KernelCache":
        """The place of a function that is defined in a file."""
        self = cls(py_func, Path(py_file))
        self.ensure_cache_path()
        return self

    def get_cache_path(self) -> str:
        """The folder."""
        return str(self._folder)

    def get_source_stamp(self) -> str:
        """The state of the source; the folder's name has it."""
        return self._folder.name

    def get_disambiguator(self) -> str:
        """What tells functions of one name in a file apart."""
        return str(self._line)
