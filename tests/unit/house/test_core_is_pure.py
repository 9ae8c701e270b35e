"""The deciding core reaches nothing outside: its imports are parsed, not trusted."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FORBIDDEN = {
    "faust", "mode", "boto3", "botocore", "aiokafka", "psycopg", "aiohttp", "requests", "socket", "subprocess", "asyncio",
    "threading", "os", "time", "random", "secrets", "tempfile", "pathlib", "rocksdict",
}  # fmt: skip
FORBIDDEN_CALLS = {"now", "utcnow", "today", "uuid1", "uuid4", "open", "getenv"}
INSIDE = {"app.core", "app.kernels", "app.errors"}
MODULES = sorted((ROOT / "app" / "core").rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def called(tree: ast.AST) -> set[str]:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in calls}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_core_module_imports_nothing_that_acts(module: Path) -> None:
    tree = ast.parse(module.read_text())
    names = imported(tree)
    assert not {name for name in names if name.split(".")[0] in FORBIDDEN}
    ours = {name for name in names if name.split(".")[0] in {"app", "agents", "tables"}}
    assert not {name for name in ours if not any(name == ok or name.startswith(ok + ".") for ok in INSIDE)}
    assert not called(tree) & FORBIDDEN_CALLS


def test_the_check_sees_a_violation() -> None:
    tree = ast.parse("import time\nfrom os import path\nx = datetime.now()")
    assert {name.split(".")[0] for name in imported(tree)} & FORBIDDEN == {"time", "os"}
    assert called(tree) & FORBIDDEN_CALLS == {"now"}
