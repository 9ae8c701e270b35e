"""One line of a request, checked and in its stored form.

`parse_line` takes any bytes as one line and never fails: a line that is no event becomes a malformed line with the reason
`field: rule`. The stored form is canonical JSON with only the fields of `STORED_FIELDS`. Each field has its type or is
absent, so that frames of lines can be read by column with a fixed schema:

    valid       the fields that the event's type uses, `properties` (a JSON object as text) holding everything else,
                received_at, ip, user_agent
    malformed   malformed (the reason), payload (the line as text), payload_b64 (only if it was not UTF-8), received_at,
                ip, user_agent; event_id and event_type, each only if it is valid

`malformed`, `payload` or `received_at` sent by a client are unknown fields like any other: they end in `properties`.
"""

import base64
import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from app.core.events.canonical_json import cut_text, decode, encode, storable_text
from app.core.events.fields import (
    EVENT_TYPES,
    FIELDS,
    KNOWN_TO,
    MAX_TIME_MS,
    MIN_TIME_MS,
    OF_SERVERS,
    STORED_FIELDS,
    TYPED_FIELDS,
    WITHOUT_COLUMN,
    Check,
    Field,
    KeyKind,
    integer_check,
    is_absent,
    normal_address,
    string_check,
)
from app.core.formats.flows import MAX_PROPERTIES_BYTES
from app.core.formats.stored_line import StoredLine
from app.errors import FormatInvalid, NewerFormat

__all__ = ["MAX_LINE_BYTES", "STORED_FIELDS", "StoredLine", "clean_user_agent", "parse_line", "read_stored_line"]

MAX_LINE_BYTES: Final = 64 * 1024
MAX_USER_AGENT_BYTES: Final = 1024

_IDENTITY: Final = ("event_id", "event_type")
"""Fields that even a malformed line keeps, if they are valid."""
_OWN: Final = {
    kind: frozenset({"event_type", "properties", *(p.name for p in places)} - WITHOUT_COLUMN)
    for kind, places in TYPED_FIELDS.items()
}


class _Sender(NamedTuple):
    """The facts about a line's sender that the collector knows without reading the line."""

    kind: KeyKind
    received_at_ms: int
    ip: str | None
    user_agent: str | None


def parse_line(line: bytes, kind: KeyKind, received_at_ms: int, ip: str | None, user_agent: str | None) -> StoredLine:
    """The stored form of one line.

    Args:
        line: the bytes that the client sent, without the LF.
        kind: an event of a `server` key may name its own ip and user_agent; those of a `browser` key are dropped.
        received_at_ms: arrival of the request, ms since the epoch.
        ip: the connection's address.
        user_agent: the connection's user agent; it is cut at 1024 UTF-8 bytes.

    Guarantees: never raises on any bytes; the same arguments give the same bytes.
    """
    sender = _Sender(kind, received_at_ms, ip or None, clean_user_agent(user_agent))
    if len(line) > MAX_LINE_BYTES:
        return _malformed(line, f"line: longer than {MAX_LINE_BYTES} bytes", None, sender)
    try:
        event = decode(line)
    except FormatInvalid as exc:
        return _malformed(line, f"line: {exc}", None, sender)
    if not isinstance(event, dict):
        return _malformed(line, "line: not an object", None, sender)
    stored = _store(event, sender)
    if stored is None:
        return _malformed(line, _first_fault(event, kind), event, sender)
    key: str = stored.get("page_view_id") or stored["event_id"]
    return StoredLine(encode(stored), key.encode(), True, None, received_at_ms)


@lru_cache(maxsize=1024)
def clean_user_agent(user_agent: str | None) -> str | None:
    """A user agent as it is stored: at most 1024 UTF-8 bytes, None for an empty one."""
    return cut_text(storable_text(user_agent), MAX_USER_AGENT_BYTES) if user_agent else None


def _store(event: dict[str, Any], sender: _Sender) -> dict[str, Any] | None:
    """The stored fields of a valid event, or None if any rule is broken (`_first_fault` says which)."""
    event_type = event.get("event_type")
    places = TYPED_FIELDS.get(event_type) if isinstance(event_type, str) else None
    if event_type is None or places is None:
        return None
    stored: dict[str, Any] = {"event_type": event_type}
    for name, check, is_required, is_text in places:
        value = event.get(name)
        if value is None or (is_text and value == ""):
            is_broken = is_required
        else:
            is_broken = check(value) is not None
            stored[name] = value
        if is_broken:
            return None
    if len(event) == len(stored) and WITHOUT_COLUMN.isdisjoint(stored):
        return _signed(stored, sender.received_at_ms, sender.ip, sender.user_agent)
    properties = event.get("properties")
    rest = _rest(event, _OWN[event_type], sender.kind)
    if rest is None or not isinstance(properties, dict | None):
        return None
    ip = normal_address(rest.pop("ip", "")) or sender.ip
    user_agent = clean_user_agent(rest.pop("user_agent", None)) or sender.user_agent
    merged = {**properties, **{k: v for k, v in rest.items() if k not in properties}} if properties else rest
    if merged:
        text = encode(merged)
        if len(text) > MAX_PROPERTIES_BYTES:
            return None
        stored["properties"] = text.decode()
    return _signed(stored, sender.received_at_ms, ip, user_agent)


def _signed(stored: dict[str, Any], received_at_ms: int, ip: str | None, user_agent: str | None) -> dict[str, Any]:
    """`stored` with the fields that the collector adds to every line."""
    stored["received_at"] = received_at_ms
    if ip:
        stored["ip"] = ip
    if user_agent:
        stored["user_agent"] = user_agent
    return stored


def _rest(event: dict[str, Any], own: frozenset[str], kind: KeyKind) -> dict[str, Any] | None:
    """The fields that have no place of their own in the event's type: unknown ones, and known ones that keep their rule.

    Returns: None if a known field breaks its rule.
    """
    known = KNOWN_TO[kind]
    rest: dict[str, Any] = {}
    for name, value in event.items():
        if name in own:
            continue
        if (field := known.get(name)) is None:
            if name not in OF_SERVERS:
                rest[name] = value
        elif not is_absent(field, value):
            if field.check(value) is not None:
                return None
            rest[name] = value
    return rest


def _first_fault(event: dict[str, Any], kind: KeyKind) -> str:
    """`field: rule` of the first broken rule, in the order of the catalogue."""
    for name, field in KNOWN_TO[kind].items():
        value = event.get(name)
        if is_absent(field, value):
            if _is_required(name, event):
                return f"{name}: required"
        elif (fault := field.check(value)) is not None:
            return f"{name}: {fault}"
    return f"properties: longer than {MAX_PROPERTIES_BYTES} bytes"


def _is_required(name: str, event: dict[str, Any]) -> bool:
    """Whether an event of this type must have the field; without a type, its id and type."""
    return name in _IDENTITY or (name in FIELDS and event.get("event_type", "") in FIELDS[name].required_by)


def _malformed(line: bytes, reason: str, event: dict[str, Any] | None, sender: _Sender) -> StoredLine:
    stored = {"malformed": reason, **_payload(line)}
    ip, user_agent = sender.ip, sender.user_agent
    if event is not None:
        stored |= {name: event[name] for name in _IDENTITY if _holds(FIELDS[name], event.get(name))}
        if sender.kind == "server":
            ip = event["ip"] if _holds(OF_SERVERS["ip"], event.get("ip")) else ip
            user_agent = event["user_agent"] if _holds(OF_SERVERS["user_agent"], event.get("user_agent")) else user_agent
    stored = _signed(stored, sender.received_at_ms, ip and normal_address(ip), clean_user_agent(user_agent))
    return StoredLine(encode(stored), line, False, reason, sender.received_at_ms)


def _payload(line: bytes) -> dict[str, str]:
    """The line as text of at most 64 KiB, and its bytes if they are not UTF-8."""
    head = line[: MAX_LINE_BYTES + 4]  # the last character may end behind the cut
    text = {"payload": cut_text(storable_text(head.decode(errors="replace")), MAX_LINE_BYTES)}
    try:
        line.decode()
    except UnicodeDecodeError:
        text["payload_b64"] = base64.b64encode(line[:MAX_LINE_BYTES]).decode()
    return text


def _holds(field: Field, value: object) -> bool:
    """Whether `value` is present and keeps the field's rule."""
    return not is_absent(field, value) and field.check(value) is None


def read_stored_line(line: bytes) -> dict[str, Any]:
    """The fields of a stored line, checked again; for lines that a columnar reader cannot take.

    Returns: every name of `STORED_FIELDS`, with None for an absent field. Bytes that are no stored line come back as a
        malformed line: with its reason, its text as payload, and each of event_id, event_type, received_at, ip and
        user_agent that is valid. (If received_at is None, the block's own counts.) A field of a valid event that only a
        newer collector knows goes into `properties`; a key that `properties` already has keeps its value.

    Raises:
        NewerFormat: the line is an event of a type that this version does not know, or its properties have no room for a
            field that this version does not know. Any other bytes give an answer.
    """
    empty: dict[str, Any] = dict.fromkeys(STORED_FIELDS)
    try:
        stored = decode(line)
        if not isinstance(stored, dict):
            raise FormatInvalid("not an object")
    except FormatInvalid as exc:
        return {**empty, "malformed": f"line: {exc}", **_payload(line)}
    _refuse_newer_type(stored)
    fault = _stored_fault(stored)
    if fault is None:
        known = {name: stored.get(name) for name in STORED_FIELDS}
        unknown = {name: value for name, value in stored.items() if name not in STORED_FIELDS and value is not None}
        return known | _with_unknown(known, unknown) if unknown else known
    kept = {name: stored[name] for name in _SURVIVING if name in stored and _CHECKS[name](stored[name]) is None}
    return {**empty, **kept, "malformed": fault, **_payload(line)}


def _refuse_newer_type(stored: dict[str, Any]) -> None:
    """An event of an unknown type is not rejected: the collector that stored it knew the type (rule E10)."""
    event_type = stored.get("event_type")
    is_name = isinstance(event_type, str) and _TYPE_NAME.fullmatch(event_type)
    is_event = stored.get("malformed") is None and all(_CHECKS[name](stored.get(name)) is None for name in _OF_ANY_TYPE)
    if is_name and is_event and event_type not in EVENT_TYPES:
        raise NewerFormat(f"a stored line has event_type {event_type}, which this version does not know")


def _with_unknown(known: dict[str, Any], unknown: dict[str, Any]) -> dict[str, str]:
    """`properties` of an event with the fields that only a newer collector knows."""
    if known["malformed"] is not None:
        return {}  # its payload holds the whole line
    own = decode(known["properties"].encode()) if known["properties"] else {}
    text = encode({**own, **{name: value for name, value in unknown.items() if name not in own}})
    if len(text) > MAX_PROPERTIES_BYTES:
        raise NewerFormat(f"a stored line has unknown fields {sorted(unknown)} and no room for them")
    return {"properties": text.decode()}


def _stored_fault(stored: dict[str, Any]) -> str | None:
    """`field: rule` of the first rule of stored lines that is broken, or None."""
    is_event = stored.get("malformed") is None
    for name, check in _CHECKS.items():
        value = stored.get(name)
        if value is None:
            if name == "received_at" or (is_event and _is_required(name, stored)):
                return f"{name}: required"
        elif (fault := check(value)) is not None:
            return f"{name}: {fault}"
    return None


def _properties_text(value: object) -> str | None:
    if (fault := string_check(MAX_PROPERTIES_BYTES)(value)) is not None:
        return fault
    try:
        return None if isinstance(decode(str(value).encode()), dict) else "not the text of an object"
    except FormatInvalid as exc:
        return f"{exc}"


_TYPE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_OF_ANY_TYPE: Final = ("event_id", "occurred_at", "received_at")
_SURVIVING: Final = (*_IDENTITY, "received_at", "ip", "user_agent")
_CHECKS: Final[dict[str, Check]] = {
    **{name: field.check for name, field in FIELDS.items()},
    "properties": _properties_text,
    "received_at": integer_check(MIN_TIME_MS, MAX_TIME_MS - 1),
    "ip": string_check(64),
    "user_agent": string_check(MAX_USER_AGENT_BYTES),
    "malformed": string_check(256),
    "payload": string_check(MAX_LINE_BYTES),
    "payload_b64": string_check(2 * MAX_LINE_BYTES),
}
"""The check of each field of a stored line, if the field is present."""
