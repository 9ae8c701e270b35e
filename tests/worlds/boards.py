"""The operator's files for tests: alerts, their histories, boards, runbooks; promtool; and the metrics of the code."""

import importlib
import re
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import prometheus_client
import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "compose" / "rules").glob("*.yml"))
HISTORIES = sorted((ROOT / "tests" / "unit" / "boards" / "histories").glob("*.yml"))
RUNBOOKS = sorted((ROOT / "app" / "runbooks").glob("*.md"))
OF_TARGETS = frozenset({"job", "role", "instance"})
"""Labels that Prometheus gives each series of ours (compose/prometheus.yml)."""
OF_PROMETHEUS = {"up": OF_TARGETS, "ALERTS": frozenset({"alertname", "alertstate", "severity"})}
"""Series that Prometheus makes by itself."""
SUFFIXES = {"gauge": ("",), "counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}
"""Kind of a metric -> the ends of its series' names, for alerts and boards: not the times of their creation."""
COMING: dict[str, tuple[str, set[str]]] = {}
"""Metrics that are agreed and not exported yet; a test fails as soon as one is, so that it is taken out here."""
_NAME = re.compile(r"\b(?:instream_\w+|instream:[\w:]+|process_\w+|python_\w+|up|ALERTS)\b(?!\s*\()")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_BY = re.compile(r"\b(?:by|on|without|group_left|group_right)\s*\(([^)]*)\)")


class Alert(NamedTuple):
    """An alert of compose/rules."""

    name: str
    file: Path
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]


@cache
def _rules() -> list[tuple[Path, dict[str, Any]]]:
    return [
        (file, rule) for file in RULES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]
    ]


def alerts() -> list[Alert]:
    """Every alert; a name may occur twice, with other labels."""
    return [
        Alert(rule["alert"], file, rule["expr"], rule["labels"], rule["annotations"])
        for file, rule in _rules()
        if "alert" in rule
    ]


def recorded() -> dict[str, str]:
    """Each series that a rule records -> its expression."""
    return {rule["record"]: rule["expr"] for _, rule in _rules() if "record" in rule}


def program(name: str) -> Path:
    """`promtool` or `prometheus`. A machine without them fails a test, and the reason is plain."""
    own = ROOT / ".promtool" / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        pytest.fail(
            f"{name} is missing: `make setup` unpacks it from Debian's package prometheus, with apt-get and dpkg. Where "
            "there is no apt-get, install Prometheus, so that promtool and prometheus are on the PATH",
            pytrace=False,
        )
    return Path(found)


def promtool(*words: object) -> str:
    """Run promtool; a failure shows everything that it said. Returns: its output."""
    done = subprocess.run([program("promtool"), *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def exported() -> dict[str, tuple[str, set[str]]]:
    """Each metric of a process of ours -> its kind and its labels."""
    for top in ("app", "agents", "tables"):
        for file in sorted((ROOT / top).rglob("*.py")):
            if "prometheus_client" in file.read_text():
                importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    return {
        family.name: (family.type, {*getattr(collector, "_labelnames", ()), *getattr(family, "_labelnames", ())})
        for collector in list(prometheus_client.REGISTRY._collector_to_names)
        for family in (collector.describe() if hasattr(collector, "describe") else collector.collect())
    }


def bounds_of(metric: str) -> set[str]:
    """The bounds of a histogram's buckets, as the label `le` has them; none for a metric that is to come."""
    collector = prometheus_client.REGISTRY._names_to_collectors.get(f"{metric}_bucket") if metric in exported() else None
    bounds: Iterable[float] = getattr(collector, "_upper_bounds", None) or getattr(collector, "_bounds", ()) or ()
    return {str(float(bound)) for bound in bounds}


@cache
def known_series() -> dict[str, frozenset[str]]:
    """Everything that an expression may name -> its labels."""
    of_code = {
        name + suffix: OF_TARGETS | labels | ({"le"} if suffix == "_bucket" else set())
        for name, (kind, labels) in (exported() | COMING).items()
        for suffix in SUFFIXES.get(kind, ())
    }
    return of_code | {name: frozenset(_labels_by(expr)) for name, expr in recorded().items()} | OF_PROMETHEUS


def names_in(expr: str) -> set[str]:
    """The series that an expression names."""
    return set(_NAME.findall(_STRING.sub('""', expr)))


def _labels_by(expr: str) -> set[str]:
    bare = _STRING.sub('""', expr)
    return {label.strip() for labels in _BY.findall(bare) for label in labels.split(",") if label.strip()}


def faults_in(expr: str, shown: str = "") -> list[str]:
    """The names and labels of an expression, and of the text `{{label}}` shown with it, that do not exist."""
    known = known_series()
    names = names_in(expr)
    faults = [f"no series {name}" for name in sorted(names - known.keys())] or ([] if names else ["it names no series"])
    for name, matchers in _SELECTOR.findall(_STRING.sub('""', expr)):
        asked = {matcher.split("=")[0].split("!")[0].strip() for matcher in matchers.split(",") if matcher.strip()}
        faults += [f"{name} has no label {label}" for label in sorted(asked - known.get(name, asked))]
    labels = frozenset().union(*(known.get(name, frozenset()) for name in names))
    asked = _labels_by(expr) | set(re.findall(r"\{\{\s*(\w+)\s*\}\}", shown))
    return faults + [f"no series of it has the label {label}" for label in sorted(asked - labels)]


class Runbook(NamedTuple):
    """A runbook of app/runbooks."""

    name: str
    title: str
    sections: dict[str, str]

    def commands(self, section: str | None = None) -> list[str]:
        """The command lines of a section, or of all, in order."""
        return [line for block in self._blocks("sh", section) for line in block.splitlines()]

    def queries(self, section: str | None = None) -> list[str]:
        """The PromQL expressions of a section, or of all, in order."""
        return self._blocks("promql", section)

    @property
    def prose(self) -> str:
        """The text without the blocks of commands and queries."""
        return _BLOCK.sub("", "\n".join(self.sections.values()))

    def _blocks(self, language: str, section: str | None) -> list[str]:
        texts = self.sections.values() if section is None else [self.sections[section]]
        return [body.strip() for text in texts for of, body in _BLOCK.findall(text) if of == language]


def read_runbook(file: Path) -> Runbook:
    """A runbook in its parts."""
    title, *sections = re.split(r"^## ", file.read_text(), flags=re.MULTILINE)
    parts = {heading.strip(): body for heading, _, body in (section.partition("\n") for section in sections)}
    return Runbook(file.stem, title.removeprefix("# ").strip(), parts)


def parse_with_promtool(expressions: Iterable[str], folder: Path) -> None:
    """Let promtool parse PromQL: each expression as a rule that would record it. The first fault fails."""
    rules = [{"record": f"parsed:expression_{n}", "expr": expr} for n, expr in enumerate(expressions)]
    (folder / "parsed.yml").write_text(yaml.safe_dump({"groups": [{"name": "parsed", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", folder / "parsed.yml")
