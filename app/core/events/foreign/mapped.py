"""What the readers of foreign forms share: the line that they make, its ids, and the name of what is not taken."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from app.core.events.canonical_json import Number, cut_text, decode, encode
from app.core.events.fields import FIELDS
from app.core.events.parse import MAX_LINE_BYTES
from app.core.formats.stored_line import StoredLine
from app.errors import FormatInvalid, RequestRejected

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_NEUTRAL: Final = rb"\\u0020"
MAX_REASON_BYTES: Final = 200
UNREADABLE: Final = "unreadable"
"""The kind of an event that is no object of JSON, or too long; `parse_line` names its fault."""
IDENTITY: Final = frozenset({"event_id", "event_type", "page_view_id", "occurred_at", "properties"})
"""Fields of ours that a foreign event's free data never sets."""


class Arrival(NamedTuple):
    """The facts of a request that an event may lack."""

    received_at_ms: int
    made_id: str
    """An id that is new with this request."""
    visitor_id: str | None = None
    """The visitor's id in the collector's own cookie."""


class Envelope(NamedTuple):
    """A request's body, opened."""

    events: bytes
    """JSON text: one event, or an array of events."""
    key: str = ""
    """The write key that the body itself shows, or an empty text."""


class Mapped(NamedTuple):
    """A foreign event as a line in our public form."""

    line: bytes
    kind: str
    """The event's kind in its own form, from a closed list."""
    refusal: str | None = None
    """The reason why it has no type of ours, `event_type: <name> is not taken`; None if it has one."""
    key: str = ""
    """The write key that the event itself shows, or an empty text."""
    hidden_values: int = 0
    """Values of JSON that were inside its texts, where `count_values` of the body does not see them."""


def open_json(body: bytes, shape: type[msgspec.Struct]) -> Any:
    """`body` as `shape`, whose fields are texts and raw JSON; the raw JSON is not read yet.

    msgspec refuses lone surrogates, which are JSON. It reads a text of the same length without them (`text_in`).

    Raises:
        RequestRejected: 400, it is not JSON of that shape.
    """
    try:
        return msgspec.json.decode(_SURROGATE.sub(_NEUTRAL, body), type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise _no_envelope(str(exc)) from exc
    except RecursionError as exc:
        raise _no_envelope("nested too deep") from exc


def text_in(body: bytes, raw: msgspec.Raw) -> bytes:
    """The text of `body` that `open_json` gave as `raw`."""
    text = bytes(raw)
    if _SURROGATE.search(body) is None:
        return text
    start = _SURROGATE.sub(_NEUTRAL, body).index(text)
    return body[start : start + len(text)]


def _no_envelope(fault: str) -> RequestRejected:
    return RequestRejected(400, "invalid_json", f"the body is not what this tag sends: {fault}")


def read_object(text: bytes) -> dict[str, Any] | None:
    """The object of JSON in `text`; None if there is none, or if the text is longer than a line may be."""
    if len(text) > MAX_LINE_BYTES:
        return None
    try:
        event = decode(text)
    except FormatInvalid:
        return None
    return event if isinstance(event, dict) else None


def identifier(value: object) -> str | None:
    """A foreign id as an id of ours: itself where it fits, else `x-` and its SHA-256; None for no id.

    Guarantees: equal ids give equal ids.
    """
    if isinstance(value, Number):
        value = value.text
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return None
    text = str(value)
    return text if _ID.fullmatch(text) else _digest(text.encode())


def own_id(foreign_id: object, content: Mapping[str, Any], number: int, arrival: Arrival, *, is_timed: bool) -> str:
    """The event id: the foreign one; without one a digest of the content, if the content names its time; else a new one.

    Args:
        foreign_id: the id that the foreign tracker made.
        content: the event without what changes from one attempt to the next.
        number: the event's place in its request.
        arrival: the request.
        is_timed: whether the content names its time, so that two events differ.

    Guarantees: the same event sent again has the same id, unless it has neither an id nor a time.
    """
    return identifier(foreign_id) or (_digest(encode(content)) if is_timed else f"{arrival.made_id}-{number}")


def _digest(content: bytes) -> str:
    return f"x-{hashlib.sha256(content).hexdigest()[:40]}"


def refused(tag: str, kind: str, name: str, fields: Mapping[str, Any]) -> Mapped:
    """An event without a type of ours, as a line that is malformed and keeps all of it.

    Args:
        tag: the form.
        kind: the event's kind, from the form's list.
        name: its full name, as its page calls it.
        fields: what is known of the event in our fields, and its content in `properties`.
    """
    reason = cut_text(f"event_type: {tag} {name} is not taken", MAX_REASON_BYTES)
    return Mapped(encode({"event_type": f"{tag}:{kind}", **fields}), kind, reason)


def named(stored: StoredLine, refusal: str) -> StoredLine:
    """A malformed line with the reason `refusal`."""
    fields = decode(stored.data)
    fields["malformed"] = refusal
    return stored._replace(data=encode(fields), reason=refusal)


def known_fields(data: Mapping[str, Any], event_type: str) -> dict[str, Any]:
    """The entries of `data` that are fields of ours which events of the type use, identity apart."""
    return {
        name: value
        for name, value in data.items()
        if name not in IDENTITY and name in FIELDS and event_type in FIELDS[name].used_by
    }


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that are neither None nor empty."""
    return {name: value for name, value in fields.items() if value is not None and value not in ("", {}, [])}
