"""The way into a Kafka cluster: settings that fit together, clients' options, and tokens that are renewed in time."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiokafka.errors import KafkaConnectionError

from app.adapters import kafka_clients
from app.adapters.kafka_security import AccessToken, Tokens, access
from app.errors import ConfigurationError
from app.settings import Settings

SECRET = "kept-from-everybody"
OAUTH = {
    "kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "OAUTHBEARER", "kafka_oauth_client_id": "us",
    "kafka_oauth_client_secret": SECRET,
}  # fmt: skip
IAM = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "AWS_MSK_IAM"}
SCRAM = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "SCRAM-SHA-512"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "MECHANISM is not set: set a mechanism"),
        ({"kafka_sasl_mechanism": "PLAIN"}, "PROTOCOL is PLAINTEXT and INSTREAM_KAFKA_SASL_MECHANISM is PLAIN"),
        (SCRAM | {"kafka_username": "u"}, "INSTREAM_KAFKA_PASSWORD is missing"),
        (SCRAM | {"kafka_password": SECRET}, "INSTREAM_KAFKA_USERNAME is missing"),
        ({"kafka_password": SECRET}, "INSTREAM_KAFKA_PASSWORD is set and nothing uses it"),
        (OAUTH, "INSTREAM_KAFKA_OAUTH_TOKEN_URL is missing"),
        (IAM | {"kafka_security_protocol": "SASL_PLAINTEXT"}, "AWS_MSK_IAM needs SASL_SSL"),
        ({"kafka_ca_file": Path("ca")}, "need TLS"),
        ({"kafka_security_protocol": "SSL", "kafka_key_file": Path("k")}, "set INSTREAM_KAFKA_CERTIFICATE_FILE too"),
        ({"kafka_security_protocol": "tls"}, "KAFKA_SECURITY_PROTOCOL=tls: give 'PLAINTEXT', 'SSL'"),
        (OAUTH | {"kafka_oauth_token_url": "https://u:p@host/"}, "without user and password"),
        (IAM | {"kafka_iam_region": "mars"}, "give a region's name"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(**settings)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


def test_without_settings_every_client_is_as_before() -> None:
    assert access(Settings()) == {"security_protocol": "PLAINTEXT"}


def test_every_kind_of_client_gets_the_same_way_in() -> None:
    settings = Settings(**SCRAM, kafka_username="u", kafka_password=SECRET)
    for options in (
        kafka_clients.producer(settings), kafka_clients.group_member(settings, "g", object()), kafka_clients.admin(settings),
        kafka_clients.log_reader(settings),
    ):  # fmt: skip
        assert (options["security_protocol"], options["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
        assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("u", SECRET)
        assert options["ssl_context"].check_hostname
    assert SECRET not in repr(settings)


@pytest.mark.parametrize("name", ["kafka_ca_file", "kafka_certificate_file"])
def test_a_file_that_is_no_certificate_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "pem").write_text("nothing")
    for path in (tmp_path / "pem", tmp_path / "nowhere"):
        settings = Settings(kafka_security_protocol="SSL", **{name: path})
        with pytest.raises(ConfigurationError, match=f"INSTREAM_{name.upper()}={path}"):
            access(settings)


class StandingClock:
    def __init__(self) -> None:
        self.at_s = 1000.0

    def monotonic_s(self) -> float:
        return self.at_s

    def now_ms(self) -> int:
        return round(self.at_s * 1000)


async def test_a_token_is_used_again_until_it_grows_old() -> None:
    clock, asked = StandingClock(), iter(range(10))
    tokens = Tokens(lambda: AccessToken(f"t{next(asked)}", 100), clock)
    assert [await tokens.token(), await tokens.token()] == ["t0", "t0"]
    clock.at_s += 79
    assert await tokens.token() == "t0"
    clock.at_s += 1
    assert [await tokens.token(), await tokens.token()] == ["t1", "t1"]


class TokenServer(BaseHTTPRequestHandler):
    """An OAuth server; without its secret it refuses."""

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.asked.append(form)  # type: ignore[attr-defined]
        self.send_response(200 if form["client_secret"] == [SECRET] else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"access_token": "the-token", "expires_in": 60}).encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def token_server() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), TokenServer)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_an_oauth_server_gives_tokens(token_server: Any) -> None:
    url = f"http://127.0.0.1:{token_server.server_port}/token"
    options = access(Settings(**OAUTH, kafka_oauth_token_url=url, kafka_oauth_scope="kafka"))
    assert options["sasl_mechanism"] == "OAUTHBEARER"
    assert [await options["sasl_oauth_token_provider"].token() for _ in range(2)] == ["the-token"] * 2
    assert token_server.asked == [{
        "grant_type": ["client_credentials"], "client_id": ["us"], "client_secret": [SECRET], "scope": ["kafka"],
    }]  # fmt: skip


async def test_a_refused_token_is_like_a_broker_that_does_not_answer(token_server: Any) -> None:
    url = f"http://127.0.0.1:{token_server.server_port}/token"
    options = access(Settings(**(OAUTH | {"kafka_oauth_client_secret": "wrong-one"}), kafka_oauth_token_url=url))
    with pytest.raises(KafkaConnectionError, match=r"INSTREAM_KAFKA_OAUTH_TOKEN_URL.*401") as caught:
        await options["sasl_oauth_token_provider"].token()
    assert "wrong-one" not in str(caught.value)


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.mark.usefixtures("aws_environment")
@pytest.mark.parametrize(
    ("settings", "region"), [({}, "eu-west-3"), ({"kafka_iam_region": "us-east-2"}, "us-east-2")], ids=["own", "another"]
)
async def test_credentials_of_aws_sign_a_token(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], region: str
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    options = access(Settings(**IAM, **settings))
    assert options["sasl_mechanism"] == "OAUTHBEARER"
    token = await options["sasl_oauth_token_provider"].token()
    url = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    assert url.netloc == f"kafka.{region}.amazonaws.com"
    assert parse_qs(url.query)["Action"] == ["kafka-cluster:Connect"]
    assert f"/{region}/kafka-cluster/" in parse_qs(url.query)["X-Amz-Credential"][0]
    assert SECRET not in token
    assert await options["sasl_oauth_token_provider"].token() == token


@pytest.mark.usefixtures("aws_environment")
def test_a_region_must_be_known() -> None:
    with pytest.raises(ConfigurationError, match="set AWS_REGION or INSTREAM_KAFKA_IAM_REGION"):
        access(Settings(**IAM))
