"""No message shows a password or a write key: not of a setting that is refused, a service that fails, or a crash."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from app.adapters.loaded_ledger import WarehouseLedger
from app.adapters.warehouse import connect
from app.errors import ConfigurationError, ServiceUnavailable
from app.settings import Settings, read_settings
from app.warehouse_url import OPTIONS, REMEDY, SECRET_OPTIONS, redacted_url
from tests.worlds.command_line import OF_SIGNALS, Ran, run_here

SECRET = "Xq7secret"
"""Every part of a password in these tests has it, so that a part is found, too."""
MALFORMED = [
    f"postgresql://u:{SECRET}@{SECRET}@127.0.0.1:1/db",
    f"postgresql://u:{SECRET}/{SECRET}@127.0.0.1:1/db",
    f"postgresql://u:1/{SECRET}@127.0.0.1:1/db",
    f"postgresql://u:{SECRET} {SECRET}@127.0.0.1:1/db",
    f"postgresql://u:{SECRET}%@127.0.0.1:1/db",
    f"postgresql://u:{SECRET}%zz{SECRET}@127.0.0.1:1/db",
    f"postgresql://u:{SECRET}%00@127.0.0.1:1/db",
    f"postgresql://u:{SECRET}%ff@127.0.0.1:1/db",
    f"postgresql://u:{SECRET}@127.0.0.1:99999/db",
    f"postgresql://u:{SECRET}@127.0.0.1:0/db",
    f"postgresql://u:{SECRET}@127.0.0.1:port/db",
    f"postgresql://u:{SECRET}@/db",
    f"postgresql://u:{SECRET}@127.0.0.1:1/db?{SECRET.lower()}=1",
    f"postgresql://u:{SECRET}@127.0.0.1:1/db?password=a&{SECRET}",
    f"postgresql://u@127.0.0.1:1/db?password={SECRET}={SECRET}",
    f"postgresql:/u:{SECRET}@127.0.0.1/db",
    f"postgresq://u:{SECRET}@127.0.0.1:1/db",
    f"redshift://u:{SECRET}@127.0.0.1:1/db",
    f"u:{SECRET}@127.0.0.1:1/db",
    f"host=127.0.0.1 user=u password={SECRET}",
    f"host=127.0.0.1 password={SECRET} {SECRET}",
    SECRET,
]
UNREACHABLE = [
    f"postgresql://u:{SECRET}@127.0.0.1:1/db",
    f"postgresql://u:{SECRET}%40%2F@127.0.0.1:1/db",
    f"postgresql://u@127.0.0.1:1/db?password={SECRET}",
    f"postgresql://u:{SECRET}@no-such-host.invalid/db",
    f"postgresql://u:{SECRET}@127.0.0.1:1,[::1]:1/db?sslmode=require&sslpassword={SECRET}",
    f"postgresql://u:{SECRET}@127.0.0.1:1/db?sslmode=bad",
]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(("INSTREAM_", "AWS_", "PG"))]:
        monkeypatch.delenv(name)


def ran(*words: str, home: Path, **settings: str) -> Ran | subprocess.CompletedProcess[str]:
    settings = {"INSTREAM_HOME": str(home), "AWS_CONFIG_FILE": os.devnull} | settings
    if words[0] == "instream" and words[1] not in OF_SIGNALS:
        return run_here(*words[1:], **settings)
    program, environment = Path(sys.executable).parent / words[0], os.environ | settings
    return subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False, timeout=60, env=environment)


def is_told(secret: str, exc: BaseException) -> bool:
    """Whether an exception, or one that came with it, shows a secret to whoever prints, logs or draws it."""
    texts = [str(exc), repr(exc), "".join(traceback.format_exception(exc))]
    around = [other for other in (exc.__cause__, exc.__context__) if other is not None]
    return any(secret.lower() in text.lower() for text in texts) or any(is_told(secret, other) for other in around)


# --- the warehouse's URL


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_url_is_refused_without_showing_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTREAM_WAREHOUSE_URL", url)
    with pytest.raises(ConfigurationError) as caught:
        read_settings()
    assert str(caught.value) == f"settings do not fit: INSTREAM_WAREHOUSE_URL: {REMEDY}"
    assert not is_told(SECRET, caught.value)
    assert redacted_url(url) == "postgresql://***"


@pytest.mark.parametrize("url", MALFORMED)
async def test_no_connection_is_tried_with_a_malformed_url(url: str) -> None:
    """URLs reach `connect` from stack.json, too, which the settings have not checked."""
    for use in (connect, lambda it: WarehouseLedger(it).delivery(1)):
        with pytest.raises(ConfigurationError, match="INSTREAM_WAREHOUSE_URL: give ") as caught:
            await use(url)
        assert not is_told(SECRET, caught.value)


@pytest.mark.parametrize("url", UNREACHABLE)
async def test_a_warehouse_that_does_not_answer_is_named_without_its_password(url: str) -> None:
    Settings(warehouse_url=url)  # well formed
    for use in (connect, lambda it: WarehouseLedger(it).delivery(1)):
        with pytest.raises(ServiceUnavailable, match=r"the warehouse at postgresql://u(:\*\*\*)?@") as caught:
            await use(url)
        assert not is_told(SECRET, caught.value)


def test_a_url_is_shown_whole_but_for_its_passwords() -> None:
    shown = "postgresql://u:***@h:1,[::1]:2/db?sslmode=require&password=***&sslpassword=***&user=u"
    url = f"postgresql://u:{SECRET}:?#@h:1,[::1]:2/db?sslmode=require&password={SECRET}&sslpassword={SECRET}&user=u"
    assert redacted_url(url) == shown
    assert redacted_url("postgres://u@h") == "postgres://u@h"
    assert redacted_url("postgresql://u:@h/d?") == "postgresql://u:***@h/d?"


def test_the_options_of_a_url_are_those_of_libpq() -> None:
    assert {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()} == OPTIONS
    secret = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults() if option.dispchar == b"*"}
    assert secret <= set(SECRET_OPTIONS) <= OPTIONS


def test_what_is_taken_libpq_reads_alike() -> None:
    for url in UNREACHABLE:
        found = conninfo_to_dict(url)
        assert SECRET in str(found["password"])
        assert SECRET not in str(found["host"])


@pytest.mark.parametrize("url", [MALFORMED[0], MALFORMED[1], MALFORMED[8], MALFORMED[18], UNREACHABLE[0], UNREACHABLE[2]])
@pytest.mark.parametrize(
    "words", [["wait", "--timeout", "0"], ["delivery", "quarantined"], ["status"], ["up", "--json"]], ids=str
)
def test_no_command_prints_the_password(tmp_path: Path, words: list[str], url: str) -> None:
    jars = {"INSTREAM_KAFKA_JARS": str(tmp_path)}  # `up` with a URL that fits ends there
    done = ran(
        "instream", *words, home=tmp_path / "home", INSTREAM_WAREHOUSE_URL=url, AWS_DEFAULT_REGION="us-east-1", **jars
    )
    is_refused = words[0] != "status" and url in MALFORMED  # `status` reads no setting of the pipeline
    assert done.returncode == (2 if is_refused else 1)
    assert SECRET not in done.stdout + done.stderr
    if words[0] == "delivery":
        expected = f"INSTREAM_WAREHOUSE_URL: {REMEDY}" if url in MALFORMED else "failed: the warehouse at postgresql://u"
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["python", "-m", "app.collector"], ["faust", "-A", "app.worker:delivery", "worker"]], ids=str
)
def test_no_process_prints_the_password_when_it_refuses_to_start(tmp_path: Path, words: list[str]) -> None:
    keys = f"demo:browser,server:{SECRET}"
    done = ran(*words, home=tmp_path, INSTREAM_WAREHOUSE_URL=MALFORMED[0], INSTREAM_WRITE_KEYS=keys)
    assert done.returncode != 0
    assert "INSTREAM_WAREHOUSE_URL: give postgresql://user:password@host:port/database" in done.stderr
    assert "INSTREAM_WRITE_KEYS: entry 2 is not key:browser or key:server" in done.stderr
    assert SECRET not in done.stdout + done.stderr


# --- write keys


@pytest.mark.parametrize(
    "keys",
    [SECRET, f"{SECRET}:", f":{SECRET}", f"browser:{SECRET}", f"{SECRET}:admin", f"{SECRET}:browser,{SECRET}:server",
     f"a:browser,{SECRET}"],
)  # fmt: skip
def test_write_keys_that_do_not_fit_are_not_shown(keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTREAM_WRITE_KEYS", keys)
    with pytest.raises(ConfigurationError, match="INSTREAM_WRITE_KEYS: ") as caught:
        read_settings()
    assert not is_told(SECRET, caught.value)


@pytest.mark.parametrize("keys", [{SECRET: "admin"}, {SECRET: 1}, [SECRET], {"": SECRET}])
def test_write_keys_given_in_code_are_not_shown_either(keys: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(**{"write_keys": keys})
    assert not is_told(SECRET, caught.value)


# --- settings, logs, crashes


def test_settings_do_not_draw_their_secrets() -> None:
    settings = Settings(write_keys={SECRET: "browser"}, warehouse_url=f"postgresql://u:{SECRET}@h/d")
    assert SECRET not in repr(settings) + str(settings) + f"{settings}"
    assert "bucket='instream'" in repr(settings)


def test_what_precedes_an_at_sign_is_not_shown_of_any_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTREAM_KAFKA", f"kafka://u:{SECRET}@b-1:9092")
    monkeypatch.setenv("INSTREAM_BUCKET", f"postgresql://u:{SECRET}@h/d")
    with pytest.raises(ConfigurationError, match=r"INSTREAM_BUCKET=\*\*\*@h/d: ") as caught:
        read_settings()
    assert "INSTREAM_KAFKA: ***@b-1:9092 is no server" in str(caught.value)
    assert not is_told(SECRET, caught.value)


CRASH = """
import structlog
from app.settings import read_settings
{set_up}
def work(settings, url, keys):
    every = [settings, url, keys]
    raise RuntimeError("it broke")
def main():
    settings = read_settings()
    try:
        work(settings, settings.warehouse_url, settings.write_keys)
    except RuntimeError:
        structlog.get_logger().exception("failed", settings=settings)
main()
"""
SET_UPS = {
    "console": "from app.telemetry import configure_logging; configure_logging(read_settings(), 'etl')",
    "json": "from app.telemetry import configure_logging; configure_logging(read_settings(), 'etl')",
    "command": "from app.cli.show import log_to_stderr; log_to_stderr()",
    "stand-in": "from app.console_log import draw_without_locals; draw_without_locals(colors=False)",
}


@pytest.mark.parametrize("name", SET_UPS)
def test_a_logged_crash_shows_where_and_not_with_which_values(tmp_path: Path, name: str) -> None:
    settings = {"INSTREAM_WAREHOUSE_URL": f"postgresql://u:{SECRET}@h/d", "INSTREAM_WRITE_KEYS": f"{SECRET}:browser"}
    if name in ("console", "json"):
        settings["INSTREAM_LOG_FORMAT"] = name
    done = ran("python", "-c", CRASH.format(set_up=SET_UPS[name]), home=tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "RuntimeError" in said
    assert "it broke" in said
    assert SECRET not in said
