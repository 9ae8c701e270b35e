"""The composition root: `faust -A app.worker:<role> worker` with role bridge, etl, sink, delivery or audit.

Asking for a role's app imports that role's agents and no other's, so a worker runs, and pays for, its own alone. What the
agents are given are the ports of their app (`app.shell.ports`).
"""

import importlib
from typing import Any

import app.apps
from app.apps import ROLES


def __getattr__(name: str) -> Any:
    """The role's app with its agents declared."""
    if name not in ROLES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    faust_app = getattr(app.apps, name)
    importlib.import_module(f"agents.{name}.agent")
    return faust_app
