"""The drill of the runbooks, and Prometheus over a local stack, as far as they need no stack."""

from pathlib import Path

import pytest
import yaml

from app.errors import LocalStackError
from app.local.boards import prometheus as over_a_stack
from app.local.boards.prometheus import RULES, Firing, config_of
from app.local.boards.watch import told
from tests.rig.runbooks.pace import THRESHOLDS, quick, write_quick_rules
from tests.rig.runbooks.play import NOT_PLANTED, PLANTS
from tests.worlds.boards import RULES as RULE_FILES
from tests.worlds.boards import RUNBOOKS, alerts, program, promtool, read_runbook
from tests.worlds.waiting import eventually

PAGES = {"etl": "http://127.0.0.1:9/metrics", "sink": "http://127.0.0.1:10/metrics"}


def firing(name: str, state: str = "firing", **labels: str) -> Firing:
    return Firing(labels | {"alertname": name}, {"summary": f"{name} burns", "runbook": f"app/runbooks/{name}.md"}, state)


def test_every_runbook_is_drilled_or_says_why_not() -> None:
    assert PLANTS.keys() & NOT_PLANTED.keys() == set()
    assert PLANTS.keys() | NOT_PLANTED.keys() == {file.stem for file in RUNBOOKS}
    assert len(PLANTS) > 3 * len(NOT_PLANTED)


def test_a_drills_rules_are_the_rules_in_seconds_and_fire_at_once(tmp_path: Path) -> None:
    write_quick_rules(RULES, tmp_path)
    assert promtool("check", "rules", *tmp_path.glob("*.yml")).count("SUCCESS") == len(RULE_FILES)
    rules = [
        rule
        for file in tmp_path.glob("*.yml")
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]
    assert sorted(rule["alert"] for rule in rules if "alert" in rule) == sorted(alert.name for alert in alerts())
    assert not any("for" in rule for rule in rules)
    assert {rule["alert"] for rule in rules if rule.get("alert") in THRESHOLDS} == set(THRESHOLDS)


def test_windows_become_short_and_an_unknown_one_is_an_error() -> None:
    assert quick("increase(a[15m]) or a unless a offset 15m > 300") == "increase(a[12s]) or a unless a offset 12s > 300"
    assert [quick(query) for file in RUNBOOKS for query in read_runbook(file).queries()]
    with pytest.raises(KeyError):
        quick("a[7m]")


def test_prometheus_asks_each_role_under_its_label(tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(config_of(PAGES, 0.5))
    assert promtool("check", "config", tmp_path / "prometheus.yml").count("rules found") == len(RULE_FILES)
    config = yaml.safe_load(config_of(PAGES, 0.5))
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "instream"
    assert [(target["labels"]["role"], target["targets"]) for target in job["static_configs"]] == [
        ("etl", ["127.0.0.1:9"]),
        ("sink", ["127.0.0.1:10"]),
    ]
    assert config["global"]["scrape_interval"] == "500ms"


def test_prometheus_says_what_fires_and_ends_with_its_block(tmp_path: Path) -> None:
    write_quick_rules(RULES, tmp_path)
    with over_a_stack.prometheus(tmp_path, PAGES, 0.2, tmp_path) as running:
        wanted = {"RoleDown", "RoleMissing"}  # nobody answers at these addresses, and four roles have none
        eventually(lambda: wanted <= {alert.name for alert in running.alerts() if alert.state == "firing"})
        assert {series["metric"]["role"] for series in running.query('up{job="instream"} == 0')} == set(PAGES)
        with pytest.raises(LocalStackError, match="parse error"):
            running.query("sum by (role")
    with pytest.raises(LocalStackError, match=running.url):
        running.alerts()


def test_a_prometheus_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "bad.yml").write_text("groups: 7")
    with (
        pytest.raises(LocalStackError, match=r"does not start: .*bad\.yml"),
        over_a_stack.prometheus(tmp_path, PAGES, 1, tmp_path),
    ):
        pass


def test_without_prometheus_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(over_a_stack, "PROJECT_ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalStackError, match="make setup"):
        over_a_stack.find_program()
    monkeypatch.setattr("tests.worlds.boards.ROOT", tmp_path)
    with pytest.raises(pytest.fail.Exception, match="promtool is missing: `make setup`"):
        program("promtool")


def test_watch_tells_of_an_alert_when_it_begins_and_when_it_ends() -> None:
    down, other = firing("RoleDown", role="etl"), firing("RoleDown", role="sink")
    assert told([], [down]) == ["RoleDown: RoleDown burns -> app/runbooks/RoleDown.md"]
    assert told([], [firing("RoleDown", "pending")]) == []
    assert told([down], [down, other]) == ["RoleDown: RoleDown burns -> app/runbooks/RoleDown.md"]
    assert told([down, other], [other]) == ["RoleDown is over"]
    assert told([down], [Firing(down.labels, {"summary": "now 7", "runbook": "r"}, "firing")]) == []
