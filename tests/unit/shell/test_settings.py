"""The settings are read once, from the environment; what does not fit is named by its variable."""

import pytest

from app.core.rules import JoinRules
from app.errors import ConfigurationError
from app.settings import read_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("INSTREAM_")]:
        monkeypatch.delenv(name)


def test_the_defaults_are_those_of_production() -> None:
    settings = read_settings()
    assert settings.join == JoinRules(90_000, 30_000, 10_000)
    assert (settings.partitions, settings.epoch, settings.slack_s, settings.linger_ms) == (32, 1, 10, 1000)
    assert (settings.replication_factor, settings.min_insync_replicas) == (3, 2)
    assert (settings.commit_interval_s, settings.delivery_interval_s, settings.audit_grace_s) == (10, 5, 300)
    assert settings.dedup_window_ms == 7 * 86_400_000


def test_lists_and_keys_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTREAM_WRITE_KEYS", "demo:browser, a:b:server,")
    monkeypatch.setenv("INSTREAM_ALLOWED_ORIGINS", "https://a.example, https://b.example")
    monkeypatch.setenv("INSTREAM_TRUSTED_PROXIES", "10.0.0.0/8")
    settings = read_settings()
    assert settings.write_keys == {"demo": "browser", "a:b": "server"}
    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert settings.trusted_proxies == ("10.0.0.0/8",)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("JOIN_WINDOW_S", "abc", "INSTREAM_JOIN_WINDOW_S: Input should be a valid number"),
        ("PARTITIONS", "0", "INSTREAM_PARTITIONS: Input should be greater than or equal to 1"),
        ("WRITE_KEYS", "foo", "INSTREAM_WRITE_KEYS: give key:browser or key:server"),
        ("WRITE_KEYS", "foo:bar", "INSTREAM_WRITE_KEYS: Input should be 'browser' or 'server'"),
        ("DEDUP_WINDOW_S", "5", "INSTREAM_DEDUP_WINDOW_S: 5 s must exceed the 130 s"),
        ("REPLICATION_FACTOR", "1", "INSTREAM_MIN_INSYNC_REPLICAS: 2 exceeds INSTREAM_REPLICATION_FACTOR, which is 1"),
    ],
)
def test_what_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(f"INSTREAM_{name}", value)
    with pytest.raises(ConfigurationError) as caught:
        read_settings()
    assert str(caught.value).startswith(f"settings do not fit: {message}")


def test_every_fault_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTREAM_EPOCH", "0")
    monkeypatch.setenv("INSTREAM_LINGER_MS", "-1")
    with pytest.raises(ConfigurationError, match=r"INSTREAM_EPOCH: .*; INSTREAM_LINGER_MS: "):
        read_settings()
