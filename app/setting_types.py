"""Types of settings that are more than a number: names, lists, keys, and the URL of the warehouse, which may be a secret."""

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, get_args

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from app.core.delivery.statements import SAFE_REGION, SAFE_ROLE
from app.core.events.fields import KeyKind
from app.core.status.seen import ROLES
from app.variables import MOST_PORT, bad_part

KINDS: Final = get_args(KeyKind)
_SERVER: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")
_ORIGIN: Final = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")

_ROLE_URL: Final = re.compile(rf"(?:{'|'.join(ROLES)})=http://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{{1,5}})?/?")


def _named(pattern: str, remedy: str) -> Callable[[str], str]:
    """A check that a whole text matches a pattern."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(remedy)
        return text

    return check


def _parts(value: object) -> object:
    """A comma-separated text as the tuple of what it lists."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _servers(text: str) -> str:
    servers = [part.strip() for part in text.split(",")]
    for server in servers:
        match = _SERVER.fullmatch(server)
        if match is None or not 1 <= int(match[1]) <= MOST_PORT:
            raise bad_part(server, "server: give host:port, comma separated")
    return ",".join(servers)


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise bad_part(origin, "origin: give https://host or https://host:port in lower case, comma separated, or *")
    return origins


def _networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    for network in networks:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            raise bad_part(network, "network: give networks as 10.0.0.0/8, comma separated") from None
    return networks


def _role_urls(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        if not _ROLE_URL.fullmatch(entry):
            raise bad_part(entry, "address: give role=http://host:port, comma separated")
    return tuple(entry.rstrip("/") for entry in entries)


def parse_write_keys(entries: Iterable[str]) -> dict[str, KeyKind]:
    """Key -> kind of entries `key:kind`.

    Raises:
        ValueError: an entry does not fit. The text names it by its place: its key is a secret, or its kind if the two are
            swapped.
    """
    pairs = [entry.rpartition(":") for entry in entries]
    return _checked([(key.strip(), kind.strip()) for key, _, kind in pairs])


def _write_keys(value: object) -> Any:
    if isinstance(value, str):
        return parse_write_keys(part for part in value.split(",") if part.strip())
    if isinstance(value, Mapping):
        return _checked(list(value.items()))
    raise ValueError("give key:browser or key:server, comma separated")


def _checked(pairs: Sequence[tuple[str, Any]]) -> dict[str, KeyKind]:
    places: dict[str, int] = {}
    for place, (key, kind) in enumerate(pairs, 1):
        if not key or kind not in KINDS:
            raise ValueError(f"entry {place} is not key:browser or key:server, comma separated")
        if key in places:
            raise ValueError(f"entries {places[key]} and {place} have the same key: keep one of them")
        places[key] = place
    return dict(pairs)


Servers = Annotated[str, AfterValidator(_servers)]
"""`host:port`, comma separated."""
BucketName = Annotated[
    str, AfterValidator(_named(r"[A-Za-z0-9._-]{3,255}", "give an S3 bucket's name: 3 to 255 of A-Z a-z 0-9 . _ -"))
]
StreamName = Annotated[
    str, AfterValidator(_named(r"[A-Za-z0-9._-]{1,128}", "give a Kinesis stream's name: 1 to 128 of A-Z a-z 0-9 . _ -"))
]
TableName = Annotated[
    str, AfterValidator(_named(r"[A-Za-z0-9._-]{3,255}", "give a DynamoDB table's name: 3 to 255 of A-Z a-z 0-9 . _ -"))
]
IamRole = Annotated[str, AfterValidator(_named(SAFE_ROLE.pattern, "give the ARN of an IAM role, or default"))]
Region = Annotated[str, AfterValidator(_named(SAFE_REGION.pattern, "give a region's name, as eu-central-1"))]
AccountId = Annotated[str, AfterValidator(_named(r"\d{12}", "give an AWS account: 12 digits"))]
KmsKey = Annotated[
    str,
    AfterValidator(
        _named(r"(arn:[a-z-]+:kms:[a-z0-9-]+:\d{12}:(key|alias)/|alias/)?[A-Za-z0-9/_-]{1,256}", "give a KMS key")
    ),
]
TokenUrl = Annotated[
    str, AfterValidator(_named(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", "give https://host/path, without user and password"))
]
WarehouseName = Annotated[
    str,
    AfterValidator(_named(r"[a-z0-9-]{1,64}", "give the name of a Redshift cluster or workgroup: 1 to 64 of a-z 0-9 -")),
]
CertificateKey = Annotated[str, AfterValidator(_named(r"\S{16,1024}", "give a key of 16 to 1024 characters without spaces"))]
WorkgroupName = Annotated[
    str, AfterValidator(_named(r"[A-Za-z0-9._-]{1,128}", "give an Athena workgroup: 1 to 128 of A-Z a-z 0-9 . _ -"))
]
DatabaseName = Annotated[
    str, AfterValidator(_named(r"[a-z][a-z0-9_]{0,127}", "give a database's name: 1 to 128 of a-z 0-9 _"))
]
S3Url = Annotated[str, AfterValidator(_named(r"s3://[A-Za-z0-9._-]{3,255}/[^'\s]*", "give s3://bucket/prefix/"))]
CookieName = Annotated[str, AfterValidator(_named(r"[A-Za-z0-9_-]{1,64}", "give a cookie's name: letters, digits, - and _"))]
CookieDomain = Annotated[
    str, AfterValidator(_named(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+", "give a domain as example.com, in lower case"))
]
Host = Annotated[str, AfterValidator(_named(r"[A-Za-z0-9._:%-]+", "give an address or a host's name"))]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts), AfterValidator(_origins)]
RoleUrls = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts), AfterValidator(_role_urls)]
Networks = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts), AfterValidator(_networks)]
WriteKeys = Annotated[dict[str, KeyKind], NoDecode, BeforeValidator(_write_keys)]
