"""Small builders for logs of topic `blocks`: `event("e1", at_s=0)`, `block(...)`, `tick(...)`."""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import zstandard

from app.adapters.enrichment import read_lists
from app.core.enrich.bots import CrawlerNetworks
from app.core.enrich.enrich import Enricher, LocationOf, nowhere
from app.core.formats.block import BlockHeader, End, WatermarkMessage, encode_block, encode_control
from app.core.formats.source import SourceMessage
from app.core.rules import EtlRules, JoinRules

LISTS = read_lists()
BASE_MS = 1_750_000_000_000
"""Second 0 of every test."""
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
IP = "203.0.113.77"


def at_ms(at_s: float) -> int:
    return BASE_MS + round(at_s * 1000)


def event(
    event_id: str, event_type: str = "page_view", *, view: str | None = "v1", at_s: float = 0, **fields: Any
) -> dict[str, Any]:
    """A valid stored line, received and occurred at `at_s`; None leaves a field out."""
    moment = at_ms(at_s)
    line = {
        "event_id": event_id, "event_type": event_type, "page_view_id": view, "occurred_at": moment,
        "received_at": moment, "ip": IP, "user_agent": CHROME, **fields,
    }  # fmt: skip
    return {name: value for name, value in line.items() if value is not None}


def second(event_id: str, *, view: str = "v1", at_s: float = 90, **fields: Any) -> dict[str, Any]:
    return event(event_id, "engagement", view=view, at_s=at_s, **fields)


def malformed(reason: str = "line: not JSON", payload: str = "{oops", *, at_s: float = 0, **fields: Any) -> dict[str, Any]:
    return {"malformed": reason, "payload": payload, "received_at": at_ms(at_s), "ip": IP, "user_agent": CHROME, **fields}


def batch_id(number: int) -> str:
    return str(uuid.UUID(int=number))


def as_line(line: dict[str, Any] | bytes) -> bytes:
    return line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()


def block(
    *lines: dict[str, Any] | bytes, batch: int = 1, number: int = 0, first_line: int = 0, partition: int = 0,
    attempt: int = 0, epoch: int = 1, received_at_ms: int | None = None,
) -> bytes:  # fmt: skip
    """A block's envelope; received_at is the earliest of its lines, or the given one."""
    times = [line["received_at"] for line in lines if isinstance(line, dict)]
    received = min(times, default=BASE_MS) if received_at_ms is None else received_at_ms
    text = b"".join(as_line(line) + b"\n" for line in lines)
    header = BlockHeader(epoch, batch_id(batch), number, number + 1, first_line, len(lines), partition, attempt, received)
    return encode_block(header, zstandard.ZstdCompressor().compress(text))


def tick(open_shards: Mapping[str, Sequence[str]] | None = None, **marks_s: float) -> bytes:
    """A watermark message with a watermark (in seconds) for each named shard; it lists them and `open_shards`."""
    listed = {**{shard: [] for shard in marks_s}, **{s: list(p) for s, p in (open_shards or {}).items()}}
    return encode_control(WatermarkMessage({shard: at_ms(mark) for shard, mark in marks_s.items()}, listed))


def end(shard: str) -> bytes:
    return encode_control(End(shard))


def log_of(values: Iterable[bytes], *, first: int = 0, append_ms: int = 2**62) -> list[SourceMessage]:
    """Messages at consecutive offsets."""
    return [SourceMessage(first + n, append_ms, value) for n, value in enumerate(values)]


def etl_rules(**changed: Any) -> EtlRules:
    """The defaults of the settings."""
    return EtlRules(**{
        "epoch": 1, "partitions": 4, "join": JoinRules(90_000, 30_000, 10_000), "dedup_window_ms": 604_800_000,
        "message_bytes": 16 * 1024 * 1024, **changed,
    })  # fmt: skip


def enricher(
    articles: Mapping[str, Any] | None = None, campaigns: Mapping[str, Any] | None = None,
    networks: CrawlerNetworks | None = None, location_of: LocationOf = nowhere,
) -> Enricher:  # fmt: skip
    lists = LISTS if networks is None else LISTS._replace(networks=networks)
    return Enricher(articles or {}, campaigns or {}, lists, location_of)
