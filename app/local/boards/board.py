"""A Grafana page as a value: sections of panels become the JSON that Grafana reads, laid out without gaps and overlaps."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

DATASOURCE: Final = {"type": "prometheus", "uid": "instream-prometheus"}
"""The uid is that of compose/grafana/provisioning/datasources/prometheus.yml."""
SCHEMA_VERSION: Final = 38
"""Of Grafana 10.1; later ones read it."""
COLUMNS: Final = 24
"""The width of a page in units of its grid."""
TAG: Final = "instream"


class Kind(StrEnum):
    """Grafana's names of the panels that are used."""

    GRAPH = "timeseries"
    NUMBER = "stat"
    TABLE = "table"


class Unit(StrEnum):
    """Grafana's names of units."""

    COUNT = "short"
    SECONDS = "s"
    BYTES = "bytes"
    SHARE = "percentunit"
    PER_SECOND = "cps"
    BYTES_PER_SECOND = "Bps"
    YES_NO = "bool_yes_no"


class Query(NamedTuple):
    """One expression, and the name of its lines: text with `{{label}}`."""

    expr: str
    legend: str = ""


class Limit(NamedTuple):
    """From this value on a panel has this colour."""

    value: float
    colour: str


class Panel(NamedTuple):
    """One panel."""

    title: str
    queries: Sequence[Query]
    unit: Unit = Unit.COUNT
    kind: Kind = Kind.GRAPH
    width: int = 8
    help: str = ""
    """What it shows and when to worry; Grafana shows it behind an (i)."""
    limits: Sequence[Limit] = ()
    good: str = "green"
    """The colour below all limits."""
    stacked: bool = False


class Section(NamedTuple):
    """Panels under one heading, of one height."""

    title: str
    panels: Sequence[Panel]
    height: int = 8


class Board(NamedTuple):
    """One page."""

    uid: str
    title: str
    help: str
    sections: Sequence[Section]


def render(board: Board) -> dict[str, Any]:
    """The page as Grafana's JSON. Equal boards give equal JSON."""
    return {
        "uid": board.uid, "title": board.title, "description": board.help, "tags": [TAG], "timezone": "utc",
        "editable": False, "graphTooltip": 1, "schemaVersion": SCHEMA_VERSION, "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"}, "templating": {"list": []}, "annotations": {"list": [_alarms()]},
        "links": [_other_pages()], "panels": list(_laid_out(board.sections)),
    }  # fmt: skip


def _laid_out(sections: Sequence[Section]) -> Iterator[dict[str, Any]]:
    """The panels with their places: a heading over the full width, then panels from left to right, in lines.

    Raises:
        ValueError: a panel is wider than a page.
    """
    number, top = 1, 0
    for section in sections:
        yield {
            "id": number, "type": "row", "title": section.title, "collapsed": False, "panels": [],
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": top},
        }  # fmt: skip
        number, top, left = number + 1, top + 1, 0
        for panel in section.panels:
            if panel.width > COLUMNS:
                raise ValueError(f"panel {panel.title!r} is {panel.width} wide, a page {COLUMNS}")
            if left + panel.width > COLUMNS:
                left, top = 0, top + section.height
            place = {"h": section.height, "w": panel.width, "x": left, "y": top}
            yield _panel(panel, number, place)
            number, left = number + 1, left + panel.width
        top += section.height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind is Kind.TABLE
    targets = [
        {
            "refId": chr(ord("A") + n), "datasource": DATASOURCE, "expr": query.expr, "legendFormat": query.legend,
            "instant": instant, "range": not instant, "format": "table" if instant else "time_series",
        }
        for n, query in enumerate(panel.queries)
    ]  # fmt: skip
    steps: list[dict[str, Any]] = [{"value": None, "color": panel.good}]
    steps += [{"value": limit.value, "color": limit.colour} for limit in panel.limits]
    defaults: dict[str, Any] = {"unit": panel.unit.value, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.unit in {Unit.SECONDS, Unit.COUNT, Unit.BYTES, Unit.PER_SECOND, Unit.BYTES_PER_SECOND}:
        defaults["min"] = 0
    shown: dict[str, Any] = {
        "id": number, "type": panel.kind.value, "title": panel.title, "description": panel.help, "gridPos": place,
        "datasource": DATASOURCE, "targets": targets, "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind),
    }  # fmt: skip
    if panel.kind is Kind.GRAPH:
        defaults["custom"] = {
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 40 if panel.stacked else 0, "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.limits else "off"},
        }  # fmt: skip
    if panel.kind is Kind.TABLE:
        hidden = {name: True for name in ("Time", "Value", "__name__", "job", "alertstate")}
        shown["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return shown


def _options(kind: Kind) -> dict[str, Any]:
    match kind:
        case Kind.GRAPH:
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        case Kind.NUMBER:
            return {
                "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""}, "colorMode": "background",
                "graphMode": "none", "textMode": "value_and_name", "justifyMode": "auto", "orientation": "auto",
            }  # fmt: skip
        case Kind.TABLE:
            return {"frameIndex": 0, "showHeader": True}


def _alarms() -> dict[str, Any]:
    """Marks in every graph: the times at which alerts fire."""
    return {
        "name": "alarms", "datasource": DATASOURCE, "enable": True, "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing"}',
    }  # fmt: skip


def _other_pages() -> dict[str, Any]:
    """The list of our other pages, at the head of each page."""
    return {
        "title": "pages", "type": "dashboards", "icon": "external link", "tooltip": "", "url": "", "tags": [TAG],
        "asDropdown": False, "targetBlank": False, "includeVars": False, "keepTime": True,
    }  # fmt: skip
