"""A stored line read again, field by field: for lines that a columnar reader cannot take."""

import re
from typing import Any, Final

from app.core.events.canonical_json import decode, encode
from app.core.events.fields import (
    EVENT_TYPES,
    FIELDS,
    MAX_TIME_MS,
    MIN_TIME_MS,
    STORED_FIELDS,
    Check,
    integer_check,
    string_check,
)
from app.core.events.parse import IDENTITY, MAX_LINE_BYTES, MAX_USER_AGENT_BYTES, is_required, payload_of
from app.core.formats.flows import MAX_INVALID_FIELDS_BYTES, MAX_PROPERTIES_BYTES
from app.errors import FormatInvalid, NewerFormat


def read_stored_line(line: bytes) -> dict[str, Any]:
    """The fields of a stored line, checked again; for lines that a columnar reader cannot take.

    Returns: every name of `STORED_FIELDS`, with None for an absent field. Bytes that are no stored line come back as a
        malformed line: with its reason, its text as payload, and each of event_id, event_type, received_at, ip,
        user_agent and key_kind that is valid. (If received_at is None, the block's own counts.) A field of a valid event
        that only a newer collector knows goes into `properties`; a key that `properties` already has keeps its value.

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
        return {**empty, "malformed": f"line: {exc}", **payload_of(line)}
    _refuse_newer_type(stored)
    fault = _stored_fault(stored)
    if fault is None:
        known = {name: stored.get(name) for name in STORED_FIELDS}
        unknown = {name: value for name, value in stored.items() if name not in STORED_FIELDS and value is not None}
        return known | _with_unknown(known, unknown) if unknown else known
    kept = {name: stored[name] for name in _SURVIVING if name in stored and _CHECKS[name](stored[name]) is None}
    return {**empty, **kept, "malformed": fault, **payload_of(line)}


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
            if name == "received_at" or (is_event and is_required(name, stored)):
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
_SURVIVING: Final = (*IDENTITY, "received_at", "ip", "user_agent", "key_kind")
_CHECKS: Final[dict[str, Check]] = {
    **{name: field.check for name, field in FIELDS.items()},
    "properties": _properties_text,
    "received_at": integer_check(MIN_TIME_MS, MAX_TIME_MS - 1),
    "ip": string_check(64),
    "user_agent": string_check(MAX_USER_AGENT_BYTES),
    "key_kind": string_check(16),
    "invalid_fields": string_check(MAX_INVALID_FIELDS_BYTES),
    "malformed": string_check(256),
    "payload": string_check(MAX_LINE_BYTES),
    "payload_b64": string_check(2 * MAX_LINE_BYTES),
}
"""The check of each field of a stored line, if the field is present."""
