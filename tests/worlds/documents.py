"""The project's documents for tests: code spans, links, and the places in the tree that they name."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
RUNBOOKS = tuple(f"app/runbooks/{file.name}" for file in sorted((ROOT / "app" / "runbooks").glob("*.md")))
DOCUMENTS = ("README.md", "CHANGELOG.md", "app/ARCHITECTURE.md", "app/core/RULES.md", ".github/CONTRIBUTING.md", *RUNBOOKS)
TOP_LEVEL = ("app", "agents", "tables", "tests", "compose", ".github", ".ci")
"""The folders of the tree; a code span that begins with one and a slash is a path."""
_FENCE = re.compile(r"^ *```.*?^ *```$", flags=re.MULTILINE | re.DOTALL)
_GONE = re.compile(r"^### (?:Removed|Fixed)\n.*?(?=^##|\Z)", flags=re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(rf"(?:{'|'.join(map(re.escape, TOP_LEVEL))})/[\w./*<>-]*|Makefile|[\w-]+\.(?:toml|txt|md)")
_DOTTED = re.compile(r"(?:app|agents|tables|tests)(?:\.\w+)+")


class Place(NamedTuple):
    """A place that a document names: a file or folder, and perhaps a symbol in it."""

    path: str
    symbol: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.symbol}" if self.symbol else self.path


def read(document: str) -> str:
    """A document without its code blocks, and without the parts of a changelog about removed things."""
    return _GONE.sub("", _FENCE.sub("", (ROOT / document).read_text()))


def shell_lines(document: str) -> list[str]:
    """The lines of a document's code blocks of commands, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    return [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def spans(document: str) -> list[str]:
    """Every code span of a document, each once, in order."""
    return list(dict.fromkeys(_SPAN.findall(read(document))))


def links(document: str) -> list[str]:
    """Every link of a document that leads into the tree or to a heading."""
    return [target for target in dict.fromkeys(_LINK.findall(read(document))) if "://" not in target]


def place_in(span: str) -> Place | None:
    """The place that a code span names: `path`, `path:symbol` or a dotted name; None where it names none."""
    path, _, symbol = span.partition(":")
    if _PATH.fullmatch(path) and (not symbol or re.fullmatch(r"[\w.-]+", symbol)):
        return Place(path, symbol)
    return Place(span) if _DOTTED.fullmatch(span) else None


def fault_of(place: Place, root: Path = ROOT) -> str | None:
    """The reason why there is no such place; None if there is one."""
    if "/" not in place.path and _DOTTED.fullmatch(place.path):
        return None if _resolves(place.path, root) else "no such module or symbol"
    pattern = re.sub(r"<\w+>", "*", place.path)
    found = list(root.glob(pattern)) if "*" in pattern else [root / pattern]
    if not found or not found[0].exists():
        return "no such file or folder"
    if place.symbol and not any(symbol_in(file, place.symbol) for file in found):
        return f"no {place.symbol} in it"
    return None


def _resolves(dotted: str, root: Path) -> bool:
    """Whether a dotted name is a module, or a symbol in one."""
    parts = dotted.split(".")
    for split in range(len(parts), 0, -1):
        base = root.joinpath(*parts[:split])
        symbol = ".".join(parts[split:])
        if (file := base.with_suffix(".py")).is_file():
            return not symbol or symbol_in(file, symbol)
        if base.is_dir():
            return not symbol or symbol_in(base / "__init__.py", symbol)
    return False


class Symbol(NamedTuple):
    """A name that a module defines."""

    name: str
    """Dotted: `Class.method`."""
    docstring: str


@cache
def symbols(file: Path) -> dict[str, Symbol]:
    """The symbols of a Python file: functions, classes and their members, constants; each with its docstring."""
    return {symbol.name: symbol for symbol in _defined(ast.parse(file.read_text()).body, "")}


def _defined(body: list[ast.stmt], prefix: str) -> Iterator[Symbol]:
    for n, node in enumerate(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield Symbol(prefix + node.name, ast.get_docstring(node) or "")
            if isinstance(node, ast.ClassDef):
                yield from _defined(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield Symbol(prefix + target.id, _text_behind(body, n))


def _text_behind(body: list[ast.stmt], n: int) -> str:
    """The string after a statement: the docstring of a constant."""
    if n + 1 < len(body) and isinstance(after := body[n + 1], ast.Expr) and isinstance(after.value, ast.Constant):
        return str(after.value.value)
    return ""


def symbol_in(file: Path, symbol: str) -> bool:
    """Whether a Python file defines a symbol; for another file, whether it has the word."""
    if file.suffix == ".py":
        return symbol in symbols(file)
    return file.is_file() and re.search(rf"\b{re.escape(symbol)}\b", file.read_text()) is not None


def module_docstring(file: Path) -> str:
    """The docstring of a Python file."""
    return ast.get_docstring(ast.parse(file.read_text())) or ""
