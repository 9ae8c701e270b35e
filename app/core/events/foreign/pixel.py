"""A page view in the query of a picture's address: for pages without scripts (noscript) and for AMP.

Its parameters are our fields by their names; others go into `properties`. `event_id` is the page's own, else its
`page_view_id`: AMP makes one for each page view, so a second picture of the same view is the same event. A page that cannot
make ids names neither, and then each request is a page view of its own. `occurred_at` is the request's arrival unless the
page names it.
"""

from collections.abc import Mapping
from typing import Any, Final

from app.core.events.canonical_json import encode, storable_text
from app.core.events.fields import FIELDS
from app.core.events.foreign.mapped import Arrival, Envelope, Mapped, identifier, present, read_object
from app.core.formats.flows import ColumnKind

TAG: Final = "pixel"
KIND: Final = "page_view"
KINDS: Final = (KIND,)
_NUMBERS: Final = (ColumnKind.INTEGER, ColumnKind.TIMESTAMP)


def open_query(body: bytes) -> Envelope:
    """The one event of a `query_body`."""
    return Envelope(body)


def query_body(query: Mapping[str, str], referer: str | None) -> bytes:
    """The parameters of a request as the body of one event.

    Args:
        query: the parameters, without those of the request itself.
        referer: the request's Referer, the address of the page that shows the picture.
    """
    return encode({"url": storable_text(referer or ""), **{storable_text(k): storable_text(v) for k, v in query.items()}})


def map_event(text: bytes, number: int, arrival: Arrival) -> Mapped:
    """The picture's page view as a line of ours; as `app.core.events.foreign.snowplow.map_event`."""
    query = read_object(text)
    if query is None:
        return Mapped(text, KIND)
    made = f"{arrival.made_id}-{number}"
    page_view_id = identifier(query.pop("page_view_id", None))
    event_id = identifier(query.pop("event_id", None)) or page_view_id or made
    query.pop("event_type", None)
    fields = {name: _typed(name, query.pop(name)) for name in list(query) if name in FIELDS and name != "properties"}
    line: dict[str, Any] = {
        "event_type": KIND,
        "event_id": event_id,
        "page_view_id": page_view_id or event_id,
        "occurred_at": fields.pop("occurred_at", None) or arrival.received_at_ms,
        "visitor_id": fields.pop("visitor_id", None) or arrival.visitor_id,
        **fields,
        "properties": {**query, TAG: True},
    }
    return Mapped(encode(present(line)), KIND)


def _typed(name: str, value: Any) -> Any:
    """A parameter's text as the kind of its field; as it is if it does not fit, so that the field's rule judges it."""
    kind = FIELDS[name].kind
    if kind in _NUMBERS and isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if kind is ColumnKind.BOOLEAN and value in ("true", "false"):
        return value == "true"
    return value
