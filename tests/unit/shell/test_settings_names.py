"""A variable with the prefix that nothing reads is refused, and the setting that was probably meant is named."""

import os

import pytest

from app.errors import ConfigurationError
from app.local.stack.settings import read_local_settings
from app.settings import KNOWN_NAMES, read_settings
from app.variables import in_capitals, misnamed, take_on

READERS = pytest.mark.parametrize("read", [read_settings, read_local_settings])


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("INSTREAM_")]:
        monkeypatch.delenv(name)


@READERS
def test_a_misspelt_name_is_refused_with_the_nearest(read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTREAM_JOIN_WINDW_S", "4")
    with pytest.raises(ConfigurationError) as caught:
        read()
    assert str(caught.value) == (
        "settings do not fit: INSTREAM_JOIN_WINDW_S is no setting; did you mean INSTREAM_JOIN_WINDOW_S?"
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("INSTREAM_HOM", "HOME"), ("INSTREAM_KAFAK", "KAFKA"), ("INSTREAM_KAFKA_PROT", "KAFKA_PORT"),
        ("INSTREAM_WRITE_KEY", "WRITE_KEYS"), ("INSTREAM_DEDUPWINDOW_S", "DEDUP_WINDOW_S"),
        ("instream_audit_grace", "AUDIT_GRACE_S"), ("Instream_Parttions", "PARTITIONS"),
        ("INSTREAM_KAFKA_JAR", "KAFKA_JARS"),
    ],
)  # fmt: skip
def test_the_nearest_name_is_found_in_any_case(name: str, meant: str) -> None:
    assert misnamed({name: "secret"}, KNOWN_NAMES) == [f"{name} is no setting; did you mean INSTREAM_{meant}?"]


@pytest.mark.parametrize("name", ["INSTREAM_XYZZY", "INSTREAM_", "INSTREAM___"])
def test_a_name_that_is_near_to_none_is_refused_without_a_guess(name: str) -> None:
    assert misnamed({name: "1"}, KNOWN_NAMES) == [f"{name} is no setting: unset it, or see app/settings.py for the names"]


def test_a_name_that_breaks_the_line_is_quoted() -> None:
    assert misnamed({"INSTREAM_A\nB": "1"}, KNOWN_NAMES)[0].startswith(r"'INSTREAM_A\nB' is no setting")


@pytest.mark.parametrize(
    "name", ["INSTREAM_SERVICE_HOST", "INSTREAM_COLLECTOR_SERVICE_PORT_HTTP", "INSTREAM_COLLECTOR_PORT_8000_TCP_ADDR"]
)
def test_what_kubernetes_adds_for_a_service_is_named_as_that(name: str) -> None:
    assert misnamed({name: "1"}, KNOWN_NAMES) == [
        f"{name} is no setting: unset it; where Kubernetes sets it, say enableServiceLinks: false"
    ]


@READERS
def test_names_are_read_in_any_case(read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("instream_home", "/somewhere")
    monkeypatch.setenv("Instream_Kafka_Port", "1")
    monkeypatch.setenv("instream_Partitions", "7")
    assert str(read().home) == "/somewhere"
    assert read_local_settings().set_ports == {"kafka": 1}
    assert read_settings().partitions == 7


@READERS
def test_a_setting_in_two_spellings_is_refused(read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTREAM_SLACK_S", "1")
    monkeypatch.setenv("instream_slack_s", "2")
    with pytest.raises(ConfigurationError, match="INSTREAM_SLACK_S and instream_slack_s are the same setting: keep one"):
        read()


@READERS
def test_names_of_others_are_left_alone(read, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INSTREAM", "INSTREAMER_HOME", "MY_INSTREAM_HOME", "AWS_REGION"):
        monkeypatch.setenv(name, "x")
    assert str(read().home) == ".instream"


def test_every_known_name_is_taken() -> None:
    assert misnamed({f"INSTREAM_{name.upper()}": "1" for name in KNOWN_NAMES}, KNOWN_NAMES) == []


def test_in_capitals_one_name_is_one_variable() -> None:
    assert in_capitals({"instream_home": "a", "Path": "b", "INSTREAM_EPOCH": "1"}) == {
        "INSTREAM_HOME": "a", "Path": "b", "INSTREAM_EPOCH": "1",
    }  # fmt: skip


def test_variables_take_the_place_of_their_other_spellings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"instream_slack_s": "1", "instream_linger_ms": "3", "OTHER": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("INSTREAM_SLACK_S", "taken back after the test")
    take_on({"INSTREAM_SLACK_S": "2"})
    assert [os.environ[name] for name in ("INSTREAM_SLACK_S", "instream_linger_ms", "OTHER")] == ["2", "3", "x"]
    assert "instream_slack_s" not in os.environ
    assert read_settings().slack_s == 2
