"""One line of a request, checked and in its stored form.

`parse_line` takes any bytes as one line and never fails. Only a text that is no object of JSON, and a broken rule of a
field that the event's type requires, make the line malformed, with the reason `field: rule`. Any other field that breaks
its rule is mended where its meaning is plain; else it goes, as it came, into `properties`, and `invalid_fields` names
`field: rule`, joined by `; ` (rule J6). The stored form is canonical JSON with only the fields of `STORED_FIELDS`. Each
field has its type or is absent, so that frames of lines can be read by column with a fixed schema:

    valid       the fields that the event's type uses, `properties` (a JSON object as text) holding everything else,
                received_at, ip, user_agent, key_kind, invalid_fields
    malformed   malformed (the reason), payload (the line as text), payload_b64 (only if it was not UTF-8), received_at,
                ip, user_agent, key_kind; event_id and event_type, each only if it is valid

`malformed`, `payload` or `received_at` sent by a client are unknown fields like any other: they end in `properties`.
"""

import base64
from functools import lru_cache
from typing import Any, Final, NamedTuple

from app.core.events.addresses import MAX_ADDRESS_CHARACTERS, sender_address, without_households
from app.core.events.canonical_json import cut_text, decode, encode, storable_text
from app.core.events.fields import (
    FIELDS,
    KNOWN_TO,
    OF_SERVERS,
    TYPED_FIELDS,
    WITHOUT_COLUMN,
    Field,
    KeyKind,
    is_absent,
)
from app.core.events.mends import Mended
from app.core.formats.flows import MAX_INVALID_FIELDS_BYTES, MAX_PROPERTIES_BYTES
from app.core.formats.stored_line import StoredLine
from app.errors import FormatInvalid

MAX_LINE_BYTES: Final = 64 * 1024
MAX_USER_AGENT_BYTES: Final = 1024

DAY_MS: Final = 24 * 3600 * 1000
AHEAD: Final = "more than a day ahead of received_at"
"""The fault of a clock that is wrong for certain: received_at counts, and the client's time stays in properties."""

IDENTITY: Final = ("event_id", "event_type")
"""Fields that even a malformed line keeps, if they are valid."""
_OWN: Final = {
    kind: frozenset({"event_type", "properties", *(p.name for p in places)} - WITHOUT_COLUMN)
    for kind, places in TYPED_FIELDS.items()
}


class Sender(NamedTuple):
    """The facts about a line's sender that the collector knows without reading the line."""

    kind: KeyKind
    received_at_ms: int
    ip: str | None
    user_agent: str | None

    @classmethod
    def of(cls, kind: KeyKind, received_at_ms: int, ip: str | None, user_agent: str | None) -> "Sender":
        """The sender of a request's lines; its arguments are those of `parse_line`."""
        if kind == "server":  # the sender is a program of the publisher's: its address and library say nothing of a visitor
            return cls(kind, received_at_ms, None, None)
        return cls(kind, received_at_ms, ip or None, clean_user_agent(user_agent))


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
    return parse_line_of(line, Sender.of(kind, received_at_ms, ip, user_agent))


def parse_line_of(line: bytes, sender: Sender) -> StoredLine:
    """The stored form of one line; as `parse_line`, for a caller with many lines of one sender."""
    if len(line) > MAX_LINE_BYTES:
        return _malformed(line, f"line: longer than {MAX_LINE_BYTES} bytes", None, sender)
    try:
        event = decode(line)
    except FormatInvalid as exc:
        return _malformed(line, f"line: {exc}", None, sender)
    if not isinstance(event, dict):
        return _malformed(line, "line: not an object", None, sender)
    stored, is_mended = _store(event, sender), False
    if stored is None or stored["occurred_at"] > sender.received_at_ms + DAY_MS:
        mended = _store_mended(event, sender)
        if isinstance(mended, str):
            return _malformed(line, mended, event, sender)
        stored, is_mended = mended, True
    key: str = stored.get("page_view_id") or stored["event_id"]
    return StoredLine(encode(stored), key.encode(), True, None, sender.received_at_ms, is_mended)


@lru_cache(maxsize=1024)
def clean_user_agent(user_agent: str | None) -> str | None:
    """A user agent as it is stored: at most 1024 UTF-8 bytes, None for an empty one."""
    return cut_text(storable_text(user_agent), MAX_USER_AGENT_BYTES) if user_agent else None


def _named_agent(user_agent: str | None) -> str | None:
    """The user agent that a server names for its visitor; None for blanks."""
    return clean_user_agent(user_agent) if user_agent and not user_agent.isspace() else None


def _store(event: dict[str, Any], sender: Sender) -> dict[str, Any] | None:
    """The stored fields of an event that keeps every rule, as nearly all do; None for any other."""
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
        return _signed(stored, sender, sender.ip, sender.user_agent)
    properties = event.get("properties")
    rest = _rest(event, _OWN[event_type], sender.kind)
    if rest is None or not isinstance(properties, dict | None):
        return None
    ip = sender_address(rest.pop("ip", "")) or sender.ip
    user_agent = _named_agent(rest.pop("user_agent", None)) or sender.user_agent
    merged = _merged(properties, rest)
    if merged:
        text = encode(merged)
        if len(text) > MAX_PROPERTIES_BYTES:
            return None
        stored["properties"] = text.decode()
    return _signed(stored, sender, ip, user_agent)


def _signed(stored: dict[str, Any], sender: Sender, ip: str | None, user_agent: str | None) -> dict[str, Any]:
    """`stored` with the fields that the collector adds to every line."""
    stored["received_at"] = sender.received_at_ms
    if ip:
        stored["ip"] = ip
    if user_agent:
        stored["user_agent"] = user_agent
    stored["key_kind"] = sender.kind
    return stored


def encode_sender(sender: Sender) -> bytes:
    """The fields that the collector adds to every line, as an object of canonical JSON."""
    return encode(_signed({}, sender, sender.ip, sender.user_agent))


def _merged(properties: dict[str, Any] | None, rest: dict[str, Any]) -> dict[str, Any]:
    """`properties` with the fields that have no place of their own; a key of its own wins."""
    return {**properties, **{k: v for k, v in rest.items() if k not in properties}} if properties else rest


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


def _store_mended(event: dict[str, Any], sender: Sender) -> dict[str, Any] | str:
    """The stored fields of an event that breaks a rule, or the reason why it makes its line malformed.

    The order of the catalogue is that of the faults: the first that a required field has is the reason.
    """
    known = KNOWN_TO[sender.kind]
    valid: dict[str, Any] = {}
    faults: list[str] = []
    is_ahead = False
    for name, field in known.items():
        value = event.get(name)
        if is_absent(field, value):
            if is_required(name, event):
                return f"{name}: required"
            continue
        found = field.read(value)
        if isinstance(found, str):
            if is_required(name, event):
                return f"{name}: {found}"
            faults.append(f"{name}: {found}")
            continue
        if name == "occurred_at" and found.value > sender.received_at_ms + DAY_MS:
            found, is_ahead = Mended(sender.received_at_ms, AHEAD), True
        valid[name] = found.value
        if found.fault is not None:
            faults.append(f"{name}: {found.fault}")
    event_type = valid["event_type"]
    stored = {"event_type": event_type}
    stored |= {place.name: valid[place.name] for place in TYPED_FIELDS[event_type] if place.name in valid}
    apart = {*_OWN[event_type], *OF_SERVERS} & valid.keys() - ({"occurred_at"} if is_ahead else set())
    rest = {
        name: value
        for name, value in event.items()
        if name not in apart and (name not in known or not is_absent(known[name], value))
        if name in known or name not in OF_SERVERS
    }
    if "ip" in rest:  # it is no address, but a text around one may be in it
        rest["ip"] = _without_persons(rest["ip"])
    properties, is_whole = _fitting(_merged(valid.get("properties"), rest))
    if properties:
        stored["properties"] = properties
    if not is_whole:
        faults.append(f"properties: longer than {MAX_PROPERTIES_BYTES} bytes")
    ip = sender_address(valid["ip"]) if "ip" in valid else sender.ip
    _signed(stored, sender, ip, _named_agent(valid.get("user_agent")) or sender.user_agent)
    if faults:
        stored["invalid_fields"] = cut_text("; ".join(faults), MAX_INVALID_FIELDS_BYTES)
    return stored


def _without_persons(value: Any) -> Any:
    """What came as `ip` with every address in it cut to its network; of a long one the start, as text."""
    text = encode(value).decode()
    if len(text) > MAX_ADDRESS_CHARACTERS:
        return without_households(text[:MAX_ADDRESS_CHARACTERS])
    return decode(without_households(text).encode())


def _fitting(merged: dict[str, Any]) -> tuple[str | None, bool]:
    """The text of `merged` without the entries for which there is no room, and whether that is all of it."""
    if not merged:
        return None, True
    text = encode(merged)
    if len(text) <= MAX_PROPERTIES_BYTES:
        return text.decode(), True
    kept: dict[str, Any] = {}
    size = 1
    for name, value in merged.items():
        entry_bytes = len(encode({name: value})) - 1  # one brace and, in the place of the other, a comma
        if size + entry_bytes <= MAX_PROPERTIES_BYTES:
            kept[name] = value
            size += entry_bytes
    return encode(kept).decode() if kept else None, False


def is_required(name: str, event: dict[str, Any]) -> bool:
    """Whether an event of this type must have the field; without a type, its id and type."""
    return name in IDENTITY or (name in FIELDS and event.get("event_type", "") in FIELDS[name].required_by)


def _malformed(line: bytes, reason: str, event: dict[str, Any] | None, sender: Sender) -> StoredLine:
    stored = {"malformed": reason, **payload_of(line)}
    ip, user_agent = sender.ip, sender.user_agent
    if event is not None:
        stored |= {name: value for name in IDENTITY if (value := _readable(FIELDS[name], event.get(name))) is not None}
        if sender.kind == "server":
            ip = sender_address(_readable(OF_SERVERS["ip"], event.get("ip")) or "")
            user_agent = _named_agent(_readable(OF_SERVERS["user_agent"], event.get("user_agent")))
    return StoredLine(encode(_signed(stored, sender, ip, user_agent)), line, False, reason, sender.received_at_ms)


def payload_of(line: bytes) -> dict[str, str]:
    """The line as text of at most 64 KiB, and its bytes if they are not UTF-8."""
    head = line[: MAX_LINE_BYTES + 4]  # the last character may end behind the cut
    text = {"payload": cut_text(storable_text(head.decode(errors="replace")), MAX_LINE_BYTES)}
    try:
        line.decode()
    except UnicodeDecodeError:
        text["payload_b64"] = base64.b64encode(line[:MAX_LINE_BYTES]).decode()
    return text


def _readable(field: Field, value: object) -> Any:
    """The value of a field as it is stored; None if it is absent or breaks its rule."""
    if is_absent(field, value):
        return None
    found = field.read(value)
    return None if isinstance(found, str) else found.value
