"""Events as the trackers of Snowplow and Segment send them."""

import base64
import json
from typing import Any

SNOWPLOW = "iglu:com.snowplowanalytics.snowplow"
AT_MS = 1_700_000_000_000
PAGE_VIEW = "0d1f6c0e-7b1c-4d5e-9a8f-3b2c1d0e9f8a"
WEB_PAGE = {"schema": f"{SNOWPLOW}/web_page/jsonschema/1-0-0", "data": {"id": PAGE_VIEW}}


def base64url(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def contexts(*listed: Any) -> dict[str, Any]:
    return {"schema": f"{SNOWPLOW}/contexts/jsonschema/1-0-0", "data": list(listed)}


def self_describing(schema: str, data: Any) -> dict[str, Any]:
    inner = {"schema": schema if schema.startswith("iglu:") else f"{SNOWPLOW}/{schema}/jsonschema/1-0-0", "data": data}
    return {"schema": f"{SNOWPLOW}/unstruct_event/jsonschema/1-0-0", "data": inner}


def snowplow(kind: str, *more_contexts: Any, **changes: Any) -> dict[str, Any]:
    """An event of kind `e`; a change to None leaves the parameter out."""
    usual = {
        "e": kind, "eid": "9c1b6f2e-0000-4000-8000-000000000001", "dtm": str(AT_MS), "stm": str(AT_MS + 5), "p": "web",
        "tv": "js-4.6.9", "tna": "sp", "aid": "demo", "duid": "visitor-1", "sid": "session-1", "vid": "3",
        "url": "https://news.example/a", "refr": "https://search.example/", "page": "A", "lang": "de-DE",
        "tz": "Europe/Berlin", "res": "1920x1080", "vp": "1200x800", "ds": "1200x4000",
        "cx": base64url(contexts(WEB_PAGE, *more_contexts)),
    }  # fmt: skip
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def payload_data(*events: Any) -> bytes:
    return json.dumps({"schema": f"{SNOWPLOW}/payload_data/jsonschema/1-0-4", "data": list(events)}).encode()


def segment(kind: str, **changes: Any) -> dict[str, Any]:
    usual = {
        "type": kind, "messageId": "ajs-next-1700000000000-9c1b6f2e", "timestamp": "2023-11-14T22:13:20.000Z",
        "anonymousId": "visitor-1", "userId": None, "writeKey": "demo", "sentAt": "2023-11-14T22:13:21.000Z",
        "properties": {}, "_metadata": {"bundled": ["Segment.io"]},
        "context": {
            "page": {"path": "/a", "url": "https://news.example/a", "referrer": "https://search.example/", "title": "A",
                     "search": ""},
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64)", "locale": "de-DE", "timezone": "Europe/Berlin",
            "library": {"name": "analytics.js", "version": "npm:next-1.84.3"},
        },
    }  # fmt: skip
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}
