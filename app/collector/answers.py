"""The answers of the collector: what it found in a request, and one form for every refusal, wherever it comes from."""

import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from app.core.formats.stored_line import PackedLines

RETRY_AFTER_S: Final = 2
_GIF: Final = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
"""A picture of one transparent dot."""


def found_in(lines: PackedLines) -> dict[str, Any]:
    """An answer 200: `accepted`, `batch_id`, `malformed`, `reasons`; without a batch yet.

    `reasons` has the first ten malformed lines, `{"line": position in the request, from 0, "reason": text}`: the reasons
    with which these lines become rows of flow `rejected`.
    """
    reasons = [{"line": number, "reason": reason} for number, reason in lines.reasons]
    return {"accepted": lines.line_count, "batch_id": None, "malformed": lines.malformed, "reasons": reasons}


def picture() -> web.Response:
    """An answer 200 to a request of a picture; nobody on the way keeps it, so each request reaches a collector."""
    return web.Response(body=_GIF, content_type="image/gif", headers={"Cache-Control": "no-store"})


def error_answer(
    status: int, code: str, detail: str, cors: Mapping[str, str], retry_after_s: int | None = None
) -> web.Response:
    """`{"error": code, "detail": text}`; 503 always has Retry-After.

    Args:
        status: the HTTP status.
        code: the error's name; clients may rely on it.
        detail: the fault and the remedy.
        cors: the headers of `app.collector.cors`.
        retry_after_s: seconds of the Retry-After header; None for none, with 503 for `RETRY_AFTER_S`.
    """
    answer = web.json_response({"error": code, "detail": detail}, status=status, headers=cors)
    if retry_after_s is None and status == 503:
        retry_after_s = RETRY_AFTER_S
    if retry_after_s is not None:
        answer.headers["Retry-After"] = str(retry_after_s)
    return answer


def raw_error_answer(code: str, detail: str, cors: Mapping[str, str]) -> bytes:
    """A whole 503 as bytes, for a connection that gets no request handler; it ends the connection."""
    body = json.dumps({"error": code, "detail": detail})
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Content-Length": str(len(body)),
        "Retry-After": str(RETRY_AFTER_S),
        "Connection": "close",
        **cors,
    }
    lines = ["HTTP/1.1 503 Service Unavailable", *(f"{name}: {value}" for name, value in headers.items()), "", body]
    return "\r\n".join(lines).encode()
