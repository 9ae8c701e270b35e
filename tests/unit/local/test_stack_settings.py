"""The local stack's own settings, and what of a stack may be shown."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from app.cli.status import urls
from app.errors import ConfigurationError, LocalStackError
from app.local.services.java import PROJECT_ROOT, kafka_jars
from app.local.stack.environment import SERVICES, process_environment, stack_variables
from app.local.stack.life import Home, Life, State, started
from app.local.stack.processes import look_at
from app.local.stack.settings import PORT_VARIABLES, LocalStackSettings, read_local_settings
from app.local.stack.stack_file import Stack, StackSettings, enter, environment, home_of_environment, without_secrets
from app.settings import Settings

PORTS = {service.name: 20_000 + n for n, service in enumerate(SERVICES)}
SECRET = "Xq7secret"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("INSTREAM_")]:
        monkeypatch.delenv(name)


def stack(url: str = f"postgresql://u:{SECRET}@127.0.0.1:1/db") -> Stack:
    return Stack(
        home="/h", supervisor_pid=1, collector_url="http://127.0.0.1:1", warehouse_url=url, kafka="", aws_endpoint="",
        bucket="b", stream="s", registry_table="t", metrics={}, processes=[], infrastructure=[], restarts={},
        settings=StackSettings.of(Settings()),
        environment={
            "INSTREAM_HOME": "/h", "INSTREAM_WRITE_KEYS": f"{SECRET}:browser", "INSTREAM_WAREHOUSE_URL": url,
        },
    )  # fmt: skip


# --- reading


@pytest.mark.parametrize("name", ["COLLECTOR", "KAFKA", "AWS", "WAREHOUSE"])
@pytest.mark.parametrize("text", ["http", "-1", "65536", "80.5", ""])
def test_what_is_no_port_number_is_refused(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"INSTREAM_{name}_PORT", text)
    shown = text or "''"
    with pytest.raises(ConfigurationError, match=f"INSTREAM_{name}_PORT={shown}: give a whole number from 0 to 65535"):
        home_of_environment()


def test_ports_are_by_service_and_only_those_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_local_settings().set_ports == {}
    monkeypatch.setenv("INSTREAM_KAFKA_PORT", "0")
    monkeypatch.setenv("INSTREAM_WAREHOUSE_PORT", "65535")
    assert read_local_settings().set_ports == {"kafka": 0, "warehouse": 65535}


def test_every_service_with_a_variable_has_its_setting() -> None:
    assert {service.name: service.variable for service in SERVICES if service.variable} == PORT_VARIABLES
    fields = {f"INSTREAM_{name.upper()}" for name in LocalStackSettings.model_fields}
    assert set(PORT_VARIABLES.values()) <= fields


def test_home_is_the_one_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert home_of_environment().path == Path(".instream").absolute()
    monkeypatch.setenv("INSTREAM_HOME", "/somewhere")
    assert home_of_environment().path == Path("/somewhere")
    monkeypatch.setenv("INSTREAM_HOME", "")
    with pytest.raises(ConfigurationError, match="INSTREAM_HOME='': give a value, or unset it for the default"):
        home_of_environment()


def test_jars_are_where_the_setting_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if (PROJECT_ROOT / ".kafka").is_dir():
        assert kafka_jars() == PROJECT_ROOT / ".kafka"
    monkeypatch.setenv("INSTREAM_KAFKA_JARS", str(tmp_path))
    with pytest.raises(LocalStackError, match=f"Kafka's jars are missing from {tmp_path}"):
        kafka_jars()
    (tmp_path / "kafka_2.13-4.jar").touch()
    assert kafka_jars() == tmp_path


# --- one name is one variable, however it is spelled


def test_a_callers_setting_in_small_letters_reaches_the_roles_once() -> None:
    caller = {"instream_slack_s": "7", "Instream_Partitions": "8", "instream_home": "/x", "instream_data_dir": "/y"}
    variables = stack_variables(Path("/home/x"), PORTS, caller)
    environment = process_environment(caller, variables)
    assert (environment["INSTREAM_SLACK_S"], environment["INSTREAM_PARTITIONS"]) == ("7", "8")
    assert environment["INSTREAM_HOME"] == "/home/x"
    assert not [name for name in environment if name.startswith(("instream_", "Instream_"))]
    assert "INSTREAM_DATA_DIR" not in environment


def test_a_stack_that_is_entered_leads_whatever_the_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("instream_epoch", "5")
    home = Home(tmp_path)
    home.stack_file.write_text('{"environment": {"INSTREAM_EPOCH": "7"}}')
    with environment({"INSTREAM_PARTITIONS": "3"}):
        assert enter(home)
        assert {name: value for name, value in os.environ.items() if name.upper() == "INSTREAM_EPOCH"} == {
            "INSTREAM_EPOCH": "7"
        }
    assert "INSTREAM_EPOCH" not in os.environ


# --- what may be shown


def test_a_stack_is_shown_without_its_secrets() -> None:
    shown = without_secrets(stack())
    assert SECRET not in msgspec.json.encode(shown).decode()
    assert shown.warehouse_url == "postgresql://u:***@127.0.0.1:1/db"
    assert shown.environment == {"INSTREAM_HOME": "/h", "INSTREAM_WAREHOUSE_URL": shown.warehouse_url}
    assert stack().environment["INSTREAM_WRITE_KEYS"] == f"{SECRET}:browser"


@pytest.mark.parametrize("url", [f"postgresql://u:{SECRET}@127.0.0.1:1/db", f"postgresql://u:{SECRET}@{SECRET}@h/db"])
def test_status_shows_no_password(tmp_path: Path, url: str) -> None:
    home = Home(tmp_path)
    stack(url).write(home)
    home.write_life(Life(state=State.READY, supervisor=started("supervisor", os.getpid())))
    found = urls(look_at(home, 0))
    assert found["warehouse"].startswith("postgresql://")
    assert SECRET not in json.dumps(found)
