"""Imports go down the layers of app/ARCHITECTURE.md and never up: every import is parsed."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LAYERS = (
    "app.errors", "app.clock", "app.gc_tuning", "app.tracker",
    "app.kernels",
    "app.core",
    "app.variables", "app.warehouse_url", "app.setting_types", "app.kafka_access", "app.settings",
    "app.console_log", "app.telemetry",
    "app.progress", "app.topics", "app.topic_checks", "app.sql",
    "app.adapters",
    "app.crash",
    "app.shell", "app.collector",
    "app.apps", "tables",
    "agents",
    "app.local", "app.testing", "app.bench",
    "app.cli", "app.worker",
)  # fmt: skip
"""The lowest first; a module imports from its own layer and from lower ones."""
FILES = sorted(file for top in ("app", "agents", "tables") for file in (ROOT / top).rglob("*.py"))


def layer_of(module: str) -> str | None:
    """The layer of a module of ours; None for one of somebody else's, and for the empty package `app`."""
    return next((layer for layer in LAYERS if module == layer or module.startswith(layer + ".")), None)


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in it, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward(module: str, tree: ast.AST) -> set[str]:
    """The higher layers that a module imports from."""
    own = layer_of(module)
    if own is None:
        return set()
    found = {layer for name in imports(tree) if (layer := layer_of(name)) is not None}
    return {layer for layer in found if LAYERS.index(layer) > LAYERS.index(own)}


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_from_no_higher_layer(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert not any(name.split(".")[0] == "tests" for name in imports(tree)), "the product does without its tests"
    assert upward(module_of(file), tree) == set()


def test_every_module_has_a_layer() -> None:
    assert [module for file in FILES if layer_of(module := module_of(file)) is None] == ["app"]


def round_of(imported: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a round; empty where there is none."""
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return []


def test_no_modules_import_each_other() -> None:
    modules = {module_of(file): set(imports(ast.parse(file.read_text()))) for file in FILES}
    assert round_of({module: names & modules.keys() - {module} for module, names in modules.items()}) == []


def test_the_check_sees_a_violation() -> None:
    assert round_of({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) != []
    assert round_of({"a": {"b"}, "b": {"c"}, "d": {"a"}}) == []
    tree = ast.parse("def f():\n    from app.cli.main import app\nimport agents.etl.agent\nfrom app import errors")
    assert upward("app.core.rules", tree) == {"app.cli", "agents"}
    assert upward("app.worker", tree) == set()
