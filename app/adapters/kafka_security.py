"""How a Kafka client gets in, as the options of aiokafka: TLS, passwords, and tokens that are renewed in time.

A broker ends a connection whose token has expired; the client then connects again with a new one.
"""

import asyncio
import json
import ssl
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from app.adapters.aws import BOTO_ERRORS, new_session
from app.clock import Clock, SystemClock
from app.errors import ConfigurationError
from app.settings import Settings

TOKEN_TIMEOUT_S: Final = 10
USED_SHARE: Final = 0.8
"""A token is renewed when so much of its life is over. Source: Kafka, sasl.login.refresh.window.factor."""
DEFAULT_LIFE_S: Final = 300
"""Life of a token whose server does not tell it."""


class AccessToken(NamedTuple):
    """A token, and for how long it is good from now on."""

    text: str
    life_s: float


class Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens for one client's connections; each is used again until it grows old. Safe to call from any thread and loop."""

    def __init__(self, ask: Callable[[], AccessToken], clock: Clock | None = None) -> None:
        self._ask = ask
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._token = ""
        self._good_until_s = 0.0

    async def token(self) -> str:
        """A token that is good for some time yet.

        Raises:
            KafkaConnectionError: nobody gave one; aiokafka tries again, as for a broker that does not answer.
        """
        return await asyncio.to_thread(self._fresh)

    def _fresh(self) -> str:
        with self._lock:
            if not self._token or self._clock.monotonic_s() >= self._good_until_s:
                asked_s = self._clock.monotonic_s()
                found = self._ask()
                self._token, self._good_until_s = found.text, asked_s + found.life_s * USED_SHARE
            return self._token


def access(settings: Settings) -> dict[str, Any]:
    """The options of TLS and SASL of every client.

    Raises:
        ConfigurationError: a file of TLS cannot be read, or a package is missing.
    """
    options: dict[str, Any] = {"security_protocol": settings.kafka_security_protocol}
    if settings.kafka_has_tls:
        options["ssl_context"] = _tls(settings)
    match settings.kafka_sasl_mechanism:
        case None:
            return options
        case "OAUTHBEARER":
            return options | _bearer(lambda: _ask_server(settings))
        case "AWS_MSK_IAM":
            return options | _bearer(_msk_signer(settings.kafka_iam_region))
        case mechanism:
            return options | {
                "sasl_mechanism": mechanism,
                "sasl_plain_username": settings.kafka_username,
                "sasl_plain_password": settings.kafka_password,
            }


def _bearer(ask: Callable[[], AccessToken]) -> dict[str, Any]:
    return {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": Tokens(ask)}


def _tls(settings: Settings) -> ssl.SSLContext:
    """A context that checks the brokers' certificates and names."""
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca_file)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"INSTREAM_KAFKA_CA_FILE={settings.kafka_ca_file}: {exc}") from exc
    if settings.kafka_certificate_file is not None:
        password = settings.kafka_key_password or ""  # without one OpenSSL would ask on the terminal
        try:
            context.load_cert_chain(settings.kafka_certificate_file, settings.kafka_key_file, password)
        except (OSError, ValueError) as exc:
            raise ConfigurationError(
                f"INSTREAM_KAFKA_CERTIFICATE_FILE={settings.kafka_certificate_file} with its key: {exc}"
            ) from exc
    return context


def _ask_server(settings: Settings) -> AccessToken:
    """A token of the OAuth server. Source: RFC 6749, section 4.4."""
    form = {
        "grant_type": "client_credentials",
        "client_id": settings.kafka_oauth_client_id,
        "client_secret": settings.kafka_oauth_client_secret,
    } | ({"scope": settings.kafka_oauth_scope} if settings.kafka_oauth_scope else {})
    url = str(settings.kafka_oauth_token_url)
    request = Request(url, urlencode(form).encode(), {"Accept": "application/json"})
    try:
        with urlopen(request, timeout=TOKEN_TIMEOUT_S) as answer:
            found = json.loads(answer.read())
        return AccessToken(str(found["access_token"]), float(found.get("expires_in", DEFAULT_LIFE_S)))
    except (URLError, OSError, ValueError, KeyError, TypeError) as exc:
        raise KafkaConnectionError(
            f"no token from {url} (INSTREAM_KAFKA_OAUTH_TOKEN_URL): {type(exc).__name__} {exc}"
        ) from exc


def _msk_signer(region: str | None) -> Callable[[], AccessToken]:
    """Asks for tokens that this process's AWS credentials sign."""
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # noqa: PLC0415 - an optional dependency
    except ImportError as exc:
        raise ConfigurationError("AWS_MSK_IAM needs another package: pip install 'instream[msk]'") from exc
    region = region or new_session().region_name
    if region is None:
        raise ConfigurationError("AWS_MSK_IAM needs the cluster's region: set AWS_REGION or INSTREAM_KAFKA_IAM_REGION")

    def ask() -> AccessToken:
        try:
            text, expires_ms = MSKAuthTokenProvider.generate_auth_token(region)
        except (*BOTO_ERRORS, ValueError) as exc:
            raise KafkaConnectionError(f"AWS gives no credentials for Kafka: {type(exc).__name__} {exc}") from exc
        return AccessToken(str(text), expires_ms / 1000 - SystemClock().now_ms() / 1000)

    return ask
