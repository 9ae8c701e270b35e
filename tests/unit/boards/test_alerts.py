"""The alerts: promtool plays histories in which they fire and end; the code exports every series that they name."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from agents.audit.report import AuditReport
from app.apps import ROLES
from tests.worlds.boards import (
    COMING,
    HISTORIES,
    ROOT,
    RULES,
    Alert,
    alerts,
    bounds_of,
    exported,
    faults_in,
    promtool,
    recorded,
)

ALERTS = alerts()
DEMANDED = {
    "SlaBurns", "WarehouseLate", "RoleDown", "CrashLoop", "DeliveryDefers", "Quarantine", "DeadLetters", "LinesLost",
    "ForeignMessages", "WaitsForUpgrade", "LagGrows", "StorageFault",
}  # fmt: skip


def ident(alert: Alert) -> str:
    return "-".join([alert.name, *(value for name, value in alert.labels.items() if name != "severity")])


def test_promtool_takes_the_rules_and_the_configuration() -> None:
    said = promtool("check", "rules", *RULES)
    assert said.count("SUCCESS") == len(RULES)
    assert f"{len(RULES)} rule files found" in promtool("check", "config", ROOT / "compose" / "prometheus.yml")


@pytest.mark.parametrize("history", HISTORIES, ids=lambda file: file.stem)
def test_alerts_fire_in_their_histories_and_only_then(history: Path) -> None:
    promtool("test", "rules", history)


def test_a_history_that_is_told_wrongly_is_noticed(tmp_path: Path) -> None:
    (roles,) = (file for file in HISTORIES if file.stem == "roles")
    wrong = yaml.safe_load(roles.read_text())
    wrong["rule_files"] = [str(file) for file in RULES]
    wrong["tests"] = wrong["tests"][:1]
    for check in wrong["tests"][0]["alert_rule_test"]:
        check.pop("exp_alerts", None)
    (tmp_path / "wrong.yml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(AssertionError, match="etl at etl:9100 does not answer"):
        promtool("test", "rules", tmp_path / "wrong.yml")


def test_every_alert_has_a_history_in_which_it_is_silent_before_fires_and_ends() -> None:
    seen: dict[str, list[list[bool]]] = defaultdict(list)
    for history in HISTORIES:
        for played in yaml.safe_load(history.read_text())["tests"]:
            looks: dict[str, list[bool]] = defaultdict(list)
            for look in played["alert_rule_test"]:
                looks[look["alertname"]].append(bool(look.get("exp_alerts")))
            for name, fired in looks.items():
                seen[name].append(fired)
    for alert in ALERTS:
        stories = seen[alert.name]
        assert any(True in story and story[-1] is False for story in stories), f"{alert.name} never fires and ends"
        assert any(story[0] is False for story in stories) or alert.name == "RoleMissing", f"{alert.name} is never silent"
    assert set(seen) == {alert.name for alert in ALERTS}


def test_what_was_demanded_has_an_alert() -> None:
    assert {alert.name for alert in ALERTS} >= DEMANDED


@pytest.mark.parametrize("alert", ALERTS, ids=ident)
def test_an_alert_says_how_urgent_it_is_what_is_wrong_and_where_the_runbook_is(alert: Alert) -> None:
    assert alert.labels["severity"] in {"page", "ticket"}
    assert alert.annotations["summary"]
    assert alert.annotations["runbook"] == f"app/runbooks/{alert.name}.md"
    assert (ROOT / alert.annotations["runbook"]).is_file()


@pytest.mark.parametrize("alert", ALERTS, ids=ident)
def test_an_alert_asks_for_series_that_exist(alert: Alert) -> None:
    assert faults_in(alert.expr) == []


@pytest.mark.parametrize("name", recorded())
def test_a_recorded_series_is_made_of_series_that_exist(name: str) -> None:
    assert faults_in(recorded()[name]) == []


def test_the_check_of_names_sees_a_name_and_a_label_that_do_not_exist() -> None:
    assert faults_in("instream_nothing > 0") == ["no series instream_nothing"]
    assert faults_in('instream_audit_open_batches{fund="lost"}') == ["instream_audit_open_batches has no label fund"]
    assert faults_in("sum by (topik) (instream_lag_messages)") == ["no series of it has the label topik"]
    assert faults_in("instream_lag_messages", "{{topic}} {{shard}}") == ["no series of it has the label shard"]
    assert faults_in("instream_etl_lines") == ["no series instream_etl_lines"], "a counter's series ends with _total"
    assert faults_in("vector(1)") == ["it names no series"]


def test_findings_of_the_audit_that_alerts_ask_for_exist() -> None:
    report: Any = AuditReport()
    findings = {name for name, value in msgspec.structs.asdict(report).items() if isinstance(value, int)} | {"unreadable"}
    asked = {part for alert in ALERTS for part in _values_of("found", alert.expr)}
    assert asked
    assert asked <= findings


def test_bounds_of_buckets_that_rules_ask_for_exist() -> None:
    asked = {pair for expr in recorded().values() for pair in re.findall(r'(\w+)_bucket\{le="([^"]+)"\}', expr)}
    assert {metric for metric, _ in asked} == {"instream_received_to_visible_seconds"}
    for metric, bound in asked:
        assert bound in bounds_of(metric) or metric in COMING
    assert "0.3" in bounds_of("instream_collector_ack_seconds")


def test_roles_that_alerts_ask_for_are_all_roles() -> None:
    (missing,) = (alert for alert in ALERTS if alert.name == "RoleMissing")
    assert _values_of("role", missing.expr) == {*ROLES, "collector"}


def test_no_metric_is_said_to_come_that_is_there() -> None:
    assert COMING.keys() & exported().keys() == set()


def _values_of(label: str, expr: str) -> set[str]:
    parts = [part.split('"')[1] for part in expr.split(label)[1:] if part.startswith(('="', '=~"'))]
    return {value for part in parts for value in part.split("|")}
