"""Grafana's pages: they fit Grafana's schema, their panels do not overlap, and every metric of the code is shown."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from app.apps import ROLES
from app.local.boards.__main__ import BOARDS, FOLDER, files
from app.local.boards.board import COLUMNS, Board, Kind, Panel, Query, Section, Unit, render
from tests.worlds.boards import ROOT, SUFFIXES, exported, faults_in, names_in, parse_with_promtool

PAGES: dict[str, dict[str, Any]] = {file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))}
PROVISIONED = ROOT / "compose" / "grafana" / "provisioning"
GRAFANA: dict[str, Any] = yaml.safe_load((ROOT / "compose" / "docker-compose.yml").read_text())["services"]["grafana"]
NOT_OURS = re.compile(r"python_|process_")


def panels(page: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in page["panels"] if panel["type"] != "row"]


def targets() -> list[tuple[str, str, dict[str, Any]]]:
    """(page, panel, target) of everything that is asked."""
    return [
        (name, panel["title"], target)
        for name, page in PAGES.items()
        for panel in panels(page)
        for target in panel["targets"]
    ]


def expression(target: dict[str, Any]) -> str:
    return target["expr"].replace("$__rate_interval", "1m")


def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    place = panel["gridPos"]
    return {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}


def lost(ours: Any, theirs: Any, at: str = "") -> list[str]:
    """What of a value another one does not have."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            fault
            for name, value in ours.items()
            for fault in (lost(value, theirs[name], f"{at}.{name}") if name in theirs else [f"{at}.{name}"])
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [fault for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) for fault in lost(a, b, f"{at}[{n}]")]
    return [] if ours == theirs else [at]


def as_grafana_reads(page: dict[str, Any]) -> Any:
    """The page through the types that Grafana's makers generate from its schema; unknown fields do not pass."""
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(page)))


def test_the_pages_are_those_of_the_code() -> None:
    assert files() == {file.name: file.read_text() for file in FOLDER.glob("*.json")}, "run `make boards`"


def test_there_is_a_page_to_keep_open_and_one_for_each_role() -> None:
    assert set(PAGES) == {"overview", "collector", *ROLES}
    assert len({page["uid"] for page in PAGES.values()}) == len(PAGES)
    titles = " ".join(panel["title"].lower() for panel in panels(PAGES["overview"]))
    for shown in (
        "complete up to",
        "freshness of each flow",
        "received to visible",
        "lag of each stage",
        "lines by fate",
        "alarms",
    ):
        assert shown in titles


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_grafanas_schema(name: str) -> None:
    assert lost(PAGES[name], as_grafana_reads(PAGES[name])) == []


def test_the_check_of_the_schema_sees_a_field_that_grafana_does_not_know() -> None:
    page = json.loads(json.dumps(PAGES["overview"]))
    panels(page)[0]["targets"][0]["legend"] = "x"
    panels(page)[0]["fieldConfig"]["defaults"]["units"] = "s"
    assert lost(page, as_grafana_reads(page)) == [
        ".panels[1].targets[0].legend",
        ".panels[1].fieldConfig.defaults.units",
    ]


@pytest.mark.parametrize("name", PAGES)
def test_panels_have_numbers_titles_and_places_of_their_own(name: str) -> None:
    page = PAGES[name]
    numbers = [panel["id"] for panel in page["panels"]]
    assert len(set(numbers)) == len(numbers)
    titles = [panel["title"] for panel in panels(page)]
    assert len(set(titles)) == len(titles)
    for panel in page["panels"]:
        assert panel["gridPos"]["x"] >= 0
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= COLUMNS
    for one, other in itertools.combinations(page["panels"], 2):
        assert not cells(one) & cells(other), f"{one['title']} lies on {other['title']}"


def test_a_panel_that_is_too_wide_is_refused_and_others_begin_a_new_line() -> None:
    wide = Panel("wide", [Query("up")], width=COLUMNS + 1)
    with pytest.raises(ValueError, match="wide"):
        render(Board("b", "b", "b", [Section("s", [wide])]))
    page = render(Board("b", "b", "b", [Section("s", [wide._replace(width=w) for w in (16, 16, 8)], 5)]))
    assert [tuple(panel["gridPos"].values()) for panel in page["panels"][1:]] == [
        (5, 16, 0, 1),
        (5, 16, 0, 6),
        (5, 8, 16, 6),
    ]


@pytest.mark.parametrize("name", PAGES)
def test_panels_ask_the_provisioned_source(name: str) -> None:
    (source,) = yaml.safe_load((PROVISIONED / "datasources" / "prometheus.yml").read_text())["datasources"]
    for panel in panels(PAGES[name]):
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": source["type"], "uid": source["uid"]}
    assert source["url"] == "http://prometheus:9090"


def test_grafana_finds_the_pages_and_the_source() -> None:
    mounts = dict(mount.removesuffix(":ro").split(":") for mount in GRAFANA["volumes"])
    (provider,) = yaml.safe_load((PROVISIONED / "dashboards" / "boards.yml").read_text())["providers"]
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    home = GRAFANA["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (FOLDER / Path(home).relative_to(provider["options"]["path"])).is_file()
    source = yaml.safe_load((PROVISIONED / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    scrape = yaml.safe_load((ROOT / "compose" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape


def test_every_query_asks_for_series_and_labels_that_exist() -> None:
    found = [(page, title, faults_in(expression(target), target["legendFormat"])) for page, title, target in targets()]
    assert [fault for fault in found if fault[2]] == []


def test_promtool_parses_every_query(tmp_path: Path) -> None:
    parse_with_promtool([expression(target) for *_, target in targets()], tmp_path)


def test_every_metric_of_the_code_is_on_a_page() -> None:
    shown = {name for *_, target in targets() for name in names_in(expression(target))}
    metrics = {name: SUFFIXES[kind] for name, (kind, _) in exported().items() if not NOT_OURS.match(name)}
    assert len(metrics) > 60
    assert [name for name, ends in metrics.items() if not any(name + end in shown for end in ends)] == []


def test_units_are_grafanas() -> None:
    known = {value for value in vars(units).values() if isinstance(value, str)}
    assert {unit.value for unit in Unit} <= known
    assert {panel["type"] for page in PAGES.values() for panel in panels(page)} == {kind.value for kind in Kind}


def test_a_panel_with_several_lines_names_them() -> None:
    for board in BOARDS:
        for section in board.sections:
            for panel in section.panels:
                assert panel.kind is Kind.TABLE or all(query.legend for query in panel.queries), (board.title, panel.title)
