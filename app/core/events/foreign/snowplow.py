"""Events of Snowplow's trackers (tracker protocol, `payload_data` 1-0-x): what they become, and which have no type of ours.

    e=pv                        page_view
    e=pp                        engagement, one for each ping
    e=ue ad_impression          ad_impression
    e=ue ad_click               ad_click
    everything else             refused by name: link_click, ad_conversion, structured events, transactions, ...

`event_id` is `eid`; `page_view_id` is the id of the `web_page` context, and without that context a page view's own `eid`;
`occurred_at` is `ttm`, else `dtm`. `stm` is no part of the line: it changes with every attempt.

A page ping says nothing of the pings before it: it has the farthest scroll since the last one, and neither a count nor the
page view's start. So no sum is kept here; each ping is an engagement with its own id, a retry is a duplicate, and view
`page_view_engagement` of the warehouse adds them up. A page that sends cumulated values does so in the context
`iglu:instream/event/jsonschema/1-0-0`: its data are fields of ours, and they become fields of the event.
"""

import base64
import re
from typing import Any, Final, NamedTuple

import msgspec

from app.core.events.canonical_json import decode, encode
from app.core.events.foreign.mapped import (
    UNREADABLE,
    Arrival,
    Envelope,
    Mapped,
    identifier,
    known_fields,
    open_json,
    own_id,
    present,
    read_object,
    refused,
    text_in,
)
from app.core.events.request_body import count_values
from app.errors import FormatInvalid, RequestRejected

TAG: Final = "snowplow"
_ENVELOPE: Final = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-"
_VENDOR: Final = "iglu:com.snowplowanalytics.snowplow/"
OWN_CONTEXT: Final = "iglu:instream/event/jsonschema/1-"
"""A context whose data are fields of ours."""
_TYPES: Final = {"pv": "page_view", "pp": "engagement", "ad_impression": "ad_impression", "ad_click": "ad_click"}
_NAMES: Final = {
    "pv": "page_view",
    "pp": "page_ping",
    "ad_impression": "ad_impression",
    "ad_click": "ad_click",
    "link_click": "link_click",
    "ad_conversion": "ad_conversion",
    "se": "struct",
    "tr": "transaction",
    "ti": "transaction_item",
}
_SELF_DESCRIBING: Final = "self_describing"
_UNKNOWN: Final = "unknown"
KINDS: Final = (*_NAMES.values(), _SELF_DESCRIBING, _UNKNOWN, UNREADABLE)
_MAPPED: Final = frozenset({"eid", "dtm", "ttm", "stm", "duid", "cx", "co", "ue_px", "ue_pr"})
"""Parameters that have a place of their own in a line, and `stm`, which has none."""
_OF_PAGE_VIEW: Final = {
    "url": "url",
    "refr": "referrer",
    "page": "title",
    "lang": "language",
    "tz": "time_zone",
    "sid": "session_id",
}
_SIZE: Final = re.compile(r"(\d{1,9})x(\d{1,9})")
_DIGITS: Final = re.compile(r"\d{1,18}")
_MICROS: Final = 1_000_000


class _Body(msgspec.Struct):
    schema: str
    data: msgspec.Raw


class _Described(NamedTuple):
    """A self-describing value."""

    schema: str
    data: Any


def open_body(body: bytes) -> Envelope:
    """The events of a POST's body.

    Raises:
        RequestRejected: 400, it is no `payload_data`.
    """
    opened = open_json(body, _Body)
    if not opened.schema.startswith(_ENVELOPE):
        raise RequestRejected(400, "not_payload_data", f"the body's schema is not {_ENVELOPE}0-x")
    return Envelope(text_in(body, opened.data))


def query_body(query: dict[str, str]) -> bytes:
    """The parameters of a GET as the body of a POST."""
    return encode({"schema": f"{_ENVELOPE}0-4", "data": [query]})


def map_event(text: bytes, number: int, arrival: Arrival) -> Mapped:
    """One event of a body as a line of ours.

    Args:
        text: its JSON.
        number: its place in the request.
        arrival: the request.

    Guarantees: never raises; the same event gives the same line, but for what it lacks.
    """
    if (event := read_object(text)) is None:
        return Mapped(text, UNREADABLE)
    contexts, hidden = _contexts(event)
    described, more = _hidden_json(event, "ue_px", "ue_pr")
    hidden += more
    event_kind, name = _kind_of(event, described)
    key = event["aid"] if isinstance(event.get("aid"), str) else ""
    fields = _common(event, contexts, number, arrival)
    if event_kind not in _TYPES:
        kept = {name: value for name, value in event.items() if name not in _MAPPED}
        kept |= {
            "contexts": [context._asdict() for context in contexts],
            "ue": described,
            **_undecoded(event, contexts, described),
        }
        kind = _NAMES.get(event_kind, event_kind)
        told = refused(TAG, kind, name, {**fields, "properties": {TAG: present(kept)}})
        return told._replace(key=key, hidden_values=hidden)
    event_type = _TYPES[event_kind]
    rest = {name: value for name, value in event.items() if name not in _MAPPED}
    if event_kind == "pv":
        fields |= _page_view(rest)
        fields.setdefault("page_view_id", fields["event_id"])
    elif event_kind == "pp":
        fields["scroll_pct"] = _scroll_pct(rest)
    else:
        ad = _described_inside(described)
        fields |= _ad(ad.data, is_impression=event_kind == "ad_impression")
        rest["ad"] = ad.data
    others = []
    for context in contexts:
        if context.schema.startswith(OWN_CONTEXT) and isinstance(context.data, dict):
            own = known_fields(context.data, event_type)
            fields |= own
            left = {name: value for name, value in context.data.items() if name not in own}
            others += [{"schema": context.schema, "data": left}] if left else []
        elif not _is_ours(context.schema, "web_page"):
            others.append(context._asdict())
    properties = {TAG: present({**rest, "contexts": others, **_undecoded(event, contexts, described)})}
    line = encode({"event_type": event_type, **present(fields), "properties": properties})
    return Mapped(line, _NAMES[event_kind], None, key, hidden)


def _undecoded(event: dict[str, Any], contexts: list[_Described], described: Any) -> dict[str, Any]:
    """The texts of the event that should hold JSON and do not, as they came."""
    names = (() if contexts else ("cx", "co")) + (() if described is not None else ("ue_px", "ue_pr"))
    return {name: event[name] for name in names if name in event}


def _kind_of(event: dict[str, Any], described: Any) -> tuple[str, str]:
    """The event's kind, and its full name."""
    code = event.get("e")
    if code == "ue":
        schema = _described_inside(described).schema
        for kind in ("ad_impression", "ad_click", "link_click", "ad_conversion"):
            if _is_ours(schema, kind):
                return kind, kind
        return _SELF_DESCRIBING, f"event {schema.removeprefix('iglu:') or 'without a schema'}"
    if isinstance(code, str) and code in _NAMES and len(code) == 2:
        return code, _NAMES[code]
    return _UNKNOWN, f"event e={code!r}"


def _is_ours(schema: str, name: str) -> bool:
    """Whether a schema is the one of Snowplow's own `name`, in any version of model 1."""
    return schema.startswith(f"{_VENDOR}{name}/jsonschema/1-")


def _common(event: dict[str, Any], contexts: list[_Described], number: int, arrival: Arrival) -> dict[str, Any]:
    """Fields that every event may have."""
    sent = {name: value for name, value in event.items() if name != "stm"}
    time = event.get("ttm") or event.get("dtm")
    fields: dict[str, Any] = {
        "event_id": own_id(event.get("eid"), sent, number, arrival, is_timed=bool(time)),
        "occurred_at": _number(time) if time else arrival.received_at_ms,
    }
    for context in contexts:
        if _is_ours(context.schema, "web_page") and isinstance(context.data, dict):
            fields["page_view_id"] = identifier(context.data.get("id"))
    fields["visitor_id"] = event.get("duid") or arrival.visitor_id
    return present(fields)


def _page_view(rest: dict[str, Any]) -> dict[str, Any]:
    fields = {ours: rest.pop(theirs) for theirs, ours in _OF_PAGE_VIEW.items() if theirs in rest}
    for theirs, ours in (("res", "screen_width"), ("vp", "viewport_width")):
        if (size := _size(rest.get(theirs))) is not None:
            fields[ours] = size[0]
    return fields


def _scroll_pct(rest: dict[str, Any]) -> int | None:
    """How far down the viewport's lower edge was, in percent of the document; None if the ping does not say."""
    farthest, viewport, document = rest.get("pp_may", 0), _size(rest.get("vp")), _size(rest.get("ds"))
    farthest = _number(farthest)
    if viewport is None or document is None or document[1] == 0 or not isinstance(farthest, int):
        return None
    return max(0, min(100, (farthest + viewport[1]) * 100 // document[1]))


def _ad(data: Any, *, is_impression: bool) -> dict[str, Any]:
    """An ad's fields. Its cost is revenue only where the model says what is paid for: 1,000 impressions, or a click."""
    if not isinstance(data, dict):
        return {}
    fields = {"creative_id": data.get("bannerId"), "campaign_id": data.get("campaignId")}
    slot = _number(data.get("zoneId"))
    if slot in (1, 2, 3) and not isinstance(slot, bool | float):
        fields["ad_slot"] = slot
    cost, model = data.get("cost"), data.get("costModel")
    if isinstance(cost, int | float) and not isinstance(cost, bool) and abs(cost) < 1e9:
        if is_impression and model == "cpm":
            fields["revenue_micros"] = round(cost * _MICROS / 1000)
        elif not is_impression and model == "cpc":
            fields["revenue_micros"] = round(cost * _MICROS)
    return fields


def _contexts(event: dict[str, Any]) -> tuple[list[_Described], int]:
    """The event's contexts, and how many values of JSON were hidden in them."""
    wrapped, hidden = _hidden_json(event, "cx", "co")
    listed = wrapped.get("data") if isinstance(wrapped, dict) else None
    if not isinstance(listed, list):
        return [], hidden
    return [_described(each) for each in listed], hidden


def _described_inside(wrapped: Any) -> _Described:
    return _described(wrapped.get("data") if isinstance(wrapped, dict) else None)


def _described(value: Any) -> _Described:
    if isinstance(value, dict) and isinstance(value.get("schema"), str):
        return _Described(value["schema"], value.get("data"))
    return _Described("", value)


def _hidden_json(event: dict[str, Any], encoded: str, plain: str) -> tuple[Any, int]:
    """The JSON in a text of the event, in base64 or as it is, and how many values it has at most; None if it is none."""
    content = b""
    try:
        if isinstance(text := event.get(encoded), str):
            padded = text.rstrip("=").replace("-", "+").replace("_", "/")
            content = base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
        elif isinstance(text := event.get(plain), str):
            content = text.encode()
        return decode(content), count_values(content)
    except (FormatInvalid, ValueError):
        return None, count_values(content)


def _size(value: object) -> tuple[int, int] | None:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    return (int(match[1]), int(match[2])) if match else None


def _number(value: object) -> object:
    """A text of digits as an integer; any other value as it is, so that its field's rule judges it."""
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value
