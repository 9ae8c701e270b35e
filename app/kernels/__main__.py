"""`python -m app.kernels` compiles every kernel into the cache; `make setup` and the image do it once."""

import pkgutil
import shutil
from importlib import import_module

import app.kernels
from app.kernels.cache import stale_folders


def compile_all() -> None:
    """Import every module of this package: that compiles its kernels, or reads them from the cache."""
    for module in pkgutil.walk_packages(app.kernels.__path__, f"{app.kernels.__name__}."):
        if not module.name.endswith("__main__"):
            import_module(module.name)


if __name__ == "__main__":
    compile_all()
    for folder in stale_folders():
        shutil.rmtree(folder)
