"""The tags of others that the collector takes: their paths, and one request of theirs as lines of our own form.

After 200, 400, 401, 403, 410 and 422 a tracker of Snowplow's never sends an event again. After any other status it sends it
again for ever, and everything behind it waits. So what this collector will never take is refused with 400, 401 or 422 there,
never with 413 or 415. Segment's libraries drop after every 4xx but 408, 410, 429 and 460.

Source: snowplow-javascript-tracker 4.6, libraries/tracker-core/src/emitter/index.ts; analytics-next 1.84,
plugins/segmentio/shared-dispatcher.ts.
"""

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from aiohttp import web

from app.collector.budget import Reservation
from app.collector.metrics import TAG_EVENTS
from app.collector.write_keys import KEY_HEADER, WriteKeys
from app.core.events.fields import KeyKind
from app.core.events.foreign import pixel, segment, snowplow
from app.core.events.foreign.mapped import Arrival, Envelope, Mapped, named
from app.core.events.request_body import JSON_TYPE, WORK_PER_LINE, count_values, split_body, too_complex
from app.core.formats.stored_line import StoredLine
from app.errors import RequestRejected

_HELD_EVERY: Final = 64
"""The lines that are made are counted and the clock is looked at after so many."""
_OF_REQUEST: Final = frozenset({"key", "validate", "consent"})
"""Parameters of a GET that are the request's and not the event's."""


class Tag(NamedTuple):
    """A tag, as one of its paths sees it."""

    name: str
    open_body: Callable[[bytes], Envelope]
    map_event: Callable[[bytes, int, Arrival], Mapped]
    query_body: Callable[[web.Request], bytes] | None = None
    """For a GET: the body that a POST would have."""
    final_status: Mapping[int, int] = {}
    """Statuses after which its tracker sends again, and those that end it."""

    def final(self, refusal: RequestRejected) -> RequestRejected:
        """The refusal with a status that this tag's tracker understands."""
        status = self.final_status.get(refusal.status, refusal.status)
        return RequestRejected(status, refusal.code, refusal.detail, refusal.retry_after_s)


def _parameters(request: web.Request) -> dict[str, str]:
    """The event's own parameters; the first of equal names counts."""
    return {name: request.query[name] for name in request.query if name not in _OF_REQUEST}


_FINAL: Final = {413: 422, 415: 422}
_SNOWPLOW: Final = Tag(snowplow.TAG, snowplow.open_body, snowplow.map_event, None, _FINAL)
_SNOWPLOW_GET: Final = _SNOWPLOW._replace(query_body=lambda request: snowplow.query_body(_parameters(request)))
_SEGMENT: Final = Tag(segment.TAG, segment.open_batch, segment.map_event)
_PIXEL: Final = Tag(
    pixel.TAG,
    Envelope,
    pixel.map_event,
    lambda request: pixel.query_body(_parameters(request), request.headers.get("Referer")),
)

POSTS: Final[dict[str, Tag]] = {
    "/com.snowplowanalytics.snowplow/tp2": _SNOWPLOW,
    "/v1/batch": _SEGMENT,
    "/v1/b": _SEGMENT,
    **{
        f"/v1/{path}": _SEGMENT._replace(
            open_body=segment.open_single, map_event=partial(segment.map_event, default_type=kind)
        )
        for kind in segment.TYPES
        for path in (kind, kind[0])
    },
}
"""Path -> its tag. Segment's libraries for servers use the long names, those for browsers the first letters."""
GETS: Final[dict[str, Tag]] = {"/i": _SNOWPLOW_GET, "/v1/p.gif": _PIXEL}


def tag_key(request: web.Request) -> str:
    """The write key in the head of a tag's request, or an empty text: X-Write-Key, `key`, or the user of HTTP Basic."""
    if shown := request.headers.get(KEY_HEADER) or request.query.get("key"):
        return shown
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[0]
    except ValueError:
        return ""


class WorkBounds(NamedTuple):
    """The bounds of one request's work."""

    lines: int
    units: int
    """As `WorkLimit.units`."""


class Cut(NamedTuple):
    """The events of a request."""

    events: list[Mapped]
    """Each with its line in our public form."""
    units_left: int
    """Units of work that the request may still cause."""
    kind: KeyKind
    """The kind of the request's key."""


class Translation:
    """One request of a tag: its events become lines, and what was found is kept for the answer and the metrics."""

    def __init__(self, tag: Tag, arrival: Arrival, keys: WriteKeys, kind: KeyKind | None) -> None:
        """A request whose head shows a key of `kind`; None if its head shows none, and the key is in its body."""
        self._kind = kind
        self.body_key: str | None = None
        """The known key that the body shows, if the head shows none."""
        self._tag = tag
        self._arrival = arrival
        self._keys = keys
        self._verdicts: Counter[tuple[str, str]] = Counter()

    def cut(self, body: bytes, bounds: WorkBounds, held: Reservation, check: Callable[[], None]) -> Cut:
        """The events of a body, each as a line in our public form.

        Args:
            body: the content.
            bounds: most events, and the most work.
            held: grows by the lines that are made.
            check: called again and again; it raises to stop.

        Raises:
            RequestRejected: as `split_body`; 400, the body is not what the tag sends; 401, it shows no known key.
        """
        max_lines, units = bounds
        if count_values(body) > units:
            raise too_complex()
        envelope = self._tag.open_body(body)
        held.grow(len(envelope.events))
        events = split_body(JSON_TYPE, envelope.events, max_lines, units)
        left = units - count_values(body) - WORK_PER_LINE * len(events)
        kind = self._kind or self._admit(envelope.key or self._tag.map_event(events[0], 0, self._arrival).key)
        mapped: list[Mapped] = []
        made_bytes = 0
        for number, text in enumerate(events):
            event = self._tag.map_event(text, number, self._arrival)
            left -= event.hidden_values
            if left < 0:
                raise too_complex()
            mapped.append(event)
            made_bytes += len(event.line)
            if number % _HELD_EVERY == 0:
                check()
                held.grow(made_bytes)
                made_bytes = 0
        held.grow(made_bytes)
        return Cut(mapped, left, kind)

    def name(self, event: Mapped, line: StoredLine) -> StoredLine:
        """The parsed line of an event; the line of an event without a type of ours says which event it was."""
        verdict = "refused" if event.refusal is not None else "mapped" if line.valid else "malformed"
        self._verdicts[event.kind, verdict] += 1
        return line if event.refusal is None else named(line, event.refusal)

    def count(self) -> None:
        """Count the events; they are durable."""
        for (kind, verdict), events in self._verdicts.items():
            TAG_EVENTS.labels(self._tag.name, kind, verdict).inc(events)

    def _admit(self, shown: str) -> KeyKind:
        """Take the key that the body shows. A server's key is a secret, and a body is no place for it."""
        key, kind = self._keys.find(shown)
        if kind != "browser":
            raise RequestRejected(401, "unauthorized", "a server key is shown in the head: X-Write-Key or HTTP Basic")
        self.body_key = key
        return kind
