"""The warehouse's URL as libpq reads it, and how to show it without its password."""

import re
from typing import Annotated, Final
from urllib.parse import unquote

from pydantic import AfterValidator

from app.variables import MOST_PORT

REMEDY: Final = (
    "give postgresql://user:password@host:port/database, with @ / % and spaces of the password percent-encoded as %40 %2F "
    "%25 %20 (the value is not shown, because it may hold a password)"
)
SECRET_OPTIONS: Final = ("oauth_client_secret", "password", "scram_client_key", "scram_server_key", "sslpassword")
OPTIONS: Final = frozenset((
    "application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname", "fallback_application_name",
    "gssdelegation", "gssencmode", "gsslib", "host", "hostaddr", "keepalives", "keepalives_count", "keepalives_idle",
    "keepalives_interval", "krbsrvname", "load_balance_hosts", "max_protocol_version", "min_protocol_version",
    "oauth_client_id", "oauth_issuer", "oauth_scope", "options", "passfile", "port", "replication", "require_auth",
    "requirepeer", "service", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcertmode",
    "sslcompression", "sslcrl", "sslcrldir", "sslkey", "sslkeylogfile", "sslmode", "sslnegotiation", "sslrootcert", "sslsni",
    "target_session_attrs", "tcp_user_timeout", "user", *SECRET_OPTIONS,
))  # fmt: skip
"""The allowed names after the `?`. Source: libpq 18, which refuses any other and quotes it: it may be a part of a
password."""
_ENCODED: Final = r"%(?!00)[0-9A-Fa-f]{2}"
_HOST: Final = rf"(?:\[[0-9A-Fa-f:.]+\]|(?:[^\s@/:,?#%\[\]]|{_ENCODED})+)(?::\d{{1,5}})?"
_OPTION: Final = rf"[a-z_]+=(?:[^\s@%&=]|{_ENCODED})*"
_URL: Final = re.compile(
    rf"(?P<scheme>postgres(?:ql)?://)"
    rf"(?:(?P<user>(?:[^\s@/:%]|{_ENCODED})+)(?P<password>:(?:[^\s@/%]|{_ENCODED})*)?@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)"
    rf"(?P<database>/(?:[^\s@/?%]|{_ENCODED})*)?"
    rf"(?P<options>\?(?:{_OPTION}(?:&{_OPTION})*)?)?"
)
"""Stricter than libpq, which takes a password with an `@` or `/` in it for a host: its errors then show a part of it."""
_PORT: Final = re.compile(r":(\d+)(?=,|$)")
_NAME: Final = re.compile(r"(?<=[?&])\w+(?==)")
_SECRET: Final = re.compile(rf"(?<=[?&])({'|'.join(SECRET_OPTIONS)})=[^&]*")


def is_warehouse_url(url: str) -> bool:
    """Whether libpq reads the URL as it is meant, so that nothing it says of a connection shows a part of a password."""
    match = _URL.fullmatch(url)
    if match is None or not OPTIONS.issuperset(_NAME.findall(match["options"] or "")):
        return False
    try:
        unquote(url, errors="strict")
    except UnicodeDecodeError:
        return False
    return all(1 <= int(port) <= MOST_PORT for port in _PORT.findall(match["hosts"]))


def redacted_url(url: str) -> str:
    """The URL without its passwords, for everything that people read; of a malformed one nothing is shown."""
    match = _URL.fullmatch(url)
    if match is None or not is_warehouse_url(url):
        return "postgresql://***"
    user = "" if match["user"] is None else match["user"] + ("" if match["password"] is None else ":***") + "@"
    options = _SECRET.sub(r"\1=***", match["options"] or "")
    return f"{match['scheme']}{user}{match['hosts']}{match['database'] or ''}{options}"


def _checked(url: str) -> str:
    if not is_warehouse_url(url):
        raise ValueError(REMEDY)
    return url


WarehouseUrl = Annotated[str, AfterValidator(_checked)]
