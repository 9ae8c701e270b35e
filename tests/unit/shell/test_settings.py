"""The settings are read once, from the environment; what does not fit is named by its variable."""

import pytest

from app.core.rules import JoinRules
from app.errors import ConfigurationError, SettingsRefused
from app.settings import Settings, read_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.upper().startswith("INSTREAM_")]:
        monkeypatch.delenv(name)


def refusal() -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_settings()
    return str(caught.value).removeprefix("settings do not fit: ")


def test_the_defaults_are_those_of_production() -> None:
    settings = read_settings()
    assert settings.join == JoinRules(90_000, 30_000, 10_000)
    assert (settings.partitions, settings.epoch, settings.slack_s, settings.linger_ms) == (32, 1, 10, 1000)
    assert (settings.replication_factor, settings.min_insync_replicas) == (3, 2)
    assert (settings.commit_interval_s, settings.delivery_interval_s, settings.audit_grace_s) == (10, 5, 300)
    assert settings.dedup_window_ms == 7 * 86_400_000


def test_lists_and_keys_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTREAM_WRITE_KEYS", "demo:browser, a:b : server,")
    monkeypatch.setenv("INSTREAM_ALLOWED_ORIGINS", "https://a.example, http://[::1]:8080,null")
    monkeypatch.setenv("INSTREAM_TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8")
    monkeypatch.setenv("INSTREAM_KAFKA", "b-1:9092, [::1]:9092")
    settings = read_settings()
    assert settings.write_keys == {"demo": "browser", "a:b": "server"}
    assert settings.allowed_origins == ("https://a.example", "http://[::1]:8080", "null")
    assert settings.trusted_proxies == ("10.0.0.0/8", "fd00::/8")
    assert settings.kafka == "b-1:9092,[::1]:9092"


@pytest.mark.parametrize("name", ["WRITE_KEYS", "ALLOWED_ORIGINS", "TRUSTED_PROXIES"])
def test_a_list_may_be_empty(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"INSTREAM_{name}", " , ")
    assert not getattr(read_settings(), name.lower())
    monkeypatch.setenv(f"INSTREAM_{name}", "")
    assert not getattr(read_settings(), name.lower())


EMPTY = "give a value, or unset it for the default"
SERVER = "is no server: give host:port, comma separated"
NETWORK = "is no network: give networks as 10.0.0.0/8, comma separated"
ORIGIN = "is no origin: give https://host or https://host:port in lower case, comma separated, or *"
REFUSED = [
    ("JOIN_WINDOW_S", "abc", "=abc: give a number from 0.001 to 86400"),
    ("PARTITIONS", "0", "=0: give a whole number from 1 to 1024"),
    ("PARTITIONS", "4.5", "=4.5: give a whole number from 1 to 1024"),
    ("DEDUP_WINDOW_S", "5", ": 5 s must exceed the 130 s"),
    ("LOG_FORMAT", "xml", "=xml: give 'auto', 'console' or 'json'"),
    ("WRITE_KEYS", "foo", ": entry 1 is not key:browser or key:server, comma separated"),
    ("WRITE_KEYS", "a:browser,foo:bar", ": entry 2 is not key:browser or key:server, comma separated"),
    ("WRITE_KEYS", ":browser", ": entry 1 is not key:browser or key:server, comma separated"),
    ("WRITE_KEYS", "a:browser,b:server,a:server", ": entries 1 and 3 have the same key: keep one of them"),
    ("WRITE_KEYS", "a:browser,a:browser", ": entries 1 and 2 have the same key: keep one of them"),
    ("BUCKET", "", f"='': {EMPTY}"),
    ("BUCKET", "my bucket", "=my bucket: give an S3 bucket's name: 3 to 255 of A-Z a-z 0-9 . _ -"),
    ("STREAM", "  ", f"='  ': {EMPTY}"),
    ("STREAM", "a/b", "=a/b: give a Kinesis stream's name: 1 to 128 of A-Z a-z 0-9 . _ -"),
    ("REGISTRY_TABLE", "", f"='': {EMPTY}"),
    ("REGISTRY_TABLE", "ab", "=ab: give a DynamoDB table's name: 3 to 255 of A-Z a-z 0-9 . _ -"),
    ("HOME", "", f"='': {EMPTY}"),
    ("DATA_DIR", "", f"='': {EMPTY}"),
    ("GEO_DATABASE", "", f"='': {EMPTY}"),
    ("WEB_HOST", "", f"='': {EMPTY}"),
    ("WEB_HOST", "a b", "=a b: give an address or a host's name"),
    ("KAFKA", "", f"='': {EMPTY}"),
    ("KAFKA", "b-1", f": b-1 {SERVER}"),
    ("KAFKA", "b-1:9092,b-2", f": b-2 {SERVER}"),
    ("KAFKA", "b-1:9092,", f": '' {SERVER}"),
    ("KAFKA", "b-1:0", f": b-1:0 {SERVER}"),
    ("KAFKA", "b-1:65536", f": b-1:65536 {SERVER}"),
    ("KAFKA", ":9092", f": :9092 {SERVER}"),
    ("KAFKA", "b 1:9092", f": b 1:9092 {SERVER}"),
    ("KAFKA", "kafka://b-1:9092", f": kafka://b-1:9092 {SERVER}"),
    ("COPY_IAM_ROLE", "arn:aws:iam::1:role/x", "=arn:aws:iam::1:role/x: give the ARN of an IAM role, or default"),
    ("TRUSTED_PROXIES", "10.0.0.0/8,10.0.0.0/33", f": 10.0.0.0/33 {NETWORK}"),
    ("TRUSTED_PROXIES", "here", f": here {NETWORK}"),
    ("ALLOWED_ORIGINS", "https://a.example,a.example", f": a.example {ORIGIN}"),
    ("ALLOWED_ORIGINS", "https://a.example/", f": https://a.example/ {ORIGIN}"),
    ("ALLOWED_ORIGINS", "https://A.example", f": https://A.example {ORIGIN}"),
    ("ALLOWED_ORIGINS", "https://", f": https:// {ORIGIN}"),
    ("VISITOR_COOKIE", "a=b", "=a=b: give a cookie's name: letters, digits, - and _"),
    ("VISITOR_COOKIE", "", f"='': {EMPTY}"),
    ("VISITOR_COOKIE_DOMAIN", "example", "=example: give a domain as example.com, in lower case"),
    ("VISITOR_COOKIE_DOMAIN", "a.example; Path=/", "=a.example; Path=/: give a domain as example.com, in lower case"),
    ("VISITOR_COOKIE_DAYS", "401", "=401: give a whole number from 1 to 400"),
    ("ALLOWED_ORIGINS", "https://*.example", f": https://*.example {ORIGIN}"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_what_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(f"INSTREAM_{name}", value)
    assert refusal().startswith(f"INSTREAM_{name}{message}")
    assert "\n" not in refusal()


def test_more_replicas_must_answer_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTREAM_REPLICATION_FACTOR", "1")
    assert refusal().startswith("INSTREAM_MIN_INSYNC_REPLICAS: 2 exceeds INSTREAM_REPLICATION_FACTOR, which is 1")


def test_every_fault_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTREAM_EPOCH", "0")
    monkeypatch.setenv("INSTREAM_LINGER_MS", "-1")
    monkeypatch.setenv("INSTREAM_LINGER", "5")
    assert [fault.split("=")[0].split(" ")[0] for fault in refusal().split("; ")[:3]] == [
        "INSTREAM_EPOCH", "INSTREAM_LINGER_MS", "INSTREAM_LINGER",
    ]  # fmt: skip


def test_a_long_or_broken_value_is_shown_on_one_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTREAM_BUCKET", "a\nb" * 1000)
    assert "\n" not in refusal()
    assert len(refusal()) < 200


def test_settings_given_in_code_are_checked_alike() -> None:
    with pytest.raises(ConfigurationError, match="INSTREAM_PARTITIONS=0: give a whole number from 1 to 1024"):
        Settings(partitions=0)
    with pytest.raises(ConfigurationError, match="partitons is no setting"):
        Settings(**{"partitons": 1})


@pytest.mark.parametrize(
    ("name", "window_days", "least"), [("raw", 1, 14), ("raw", 14, 28), ("data", 14, 14), ("manifests", 14, 14)]
)
def test_nothing_expires_that_may_still_be_needed(name: str, window_days: int, least: int) -> None:
    window_s = window_days * 86_400
    with pytest.raises(
        SettingsRefused, match=f"RETENTION_{name.upper()}_DAYS: {least - 1} days are too few: at least {least},"
    ):
        Settings(**{f"retention_{name}_days": least - 1, "dedup_window_s": window_s})
    kept = Settings(**{f"retention_{name}_days": least, "dedup_window_s": window_s})
    assert least in kept.retention.prefixes().values()


def test_delivery_log_outlives_manifests() -> None:
    for manifests, days in [(90, 90), (0, 13)]:
        with pytest.raises(SettingsRefused, match=f"RETENTION_LOG_DAYS: {days} days are too few"):
            Settings(retention_log_days=days, retention_manifests_days=manifests)
    for manifests, days in [(90, 91), (90, 0), (0, 14)]:
        assert Settings(retention_log_days=days, retention_manifests_days=manifests).retention.log_days == days
