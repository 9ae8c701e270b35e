"""The benchmark's events: one partition's log, the same for the same arguments, with the expected outcomes.

Simulated time runs at `RATE_PER_S` events a second over all partitions, so that page views close within a run as in
production: 30% page views, 70% of them with a second event after 90 s, 32% ad impressions, 3% clicks, 5% resent copies, 5%
bots, the rest redirects; some 515 bytes an event in its stored form. Before second events come, the others fill their place.
"""

import random
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final, NamedTuple

import zstandard

from app.core.formats.batch import ZSTD_LEVEL
from app.core.formats.block import BlockHeader, WatermarkMessage, encode_block, encode_control
from app.core.formats.flows import AD_CLICKS, AD_IMPRESSIONS, DUPLICATE, JOINED, PAGE_VIEWS, REDIRECTS, REJECTED
from app.local.traffic.content import BOTS, CAMPAIGNS, HUMANS

RATE_PER_S: Final = 2_000
SECOND_AFTER_MS: Final = 90_000
SLACK_MS: Final = 2_000
SHARD: Final = "shardId-000000000000"
SHARES: Final = {"page_view": 0.30, "ad_impression": 0.32, "ad_click": 0.03, "copy": 0.05, "bot": 0.05, "redirect": 0.04}
"""The weights of events that are drawn while no second event is due; due second events take their places."""
JOINED_SHARE: Final = 0.7
_RESENT_FROM: Final = 20_000
_SECTIONS: Final = ("politics", "sport", "culture", "science", "business", "opinion", "travel")
_REFERRERS: Final = (
    "https://www.google.com/",
    "https://t.co/Xy12",
    "https://www.facebook.com/",
    "https://www.example.com/",
    "",
)
_ADDRESSES: Final = 30_000
_OF_KEY: Final = '"key_kind":"browser"}\n'
"""The end of a stored line."""
_OUTCOME_OF: Final = {
    "page_view": PAGE_VIEWS.name, "engagement": JOINED, "ad_impression": AD_IMPRESSIONS.name, "ad_click": AD_CLICKS.name,
    "redirect": REDIRECTS.name, "copy": DUPLICATE, "bot": REJECTED.name,
}  # fmt: skip


class Shape(NamedTuple):
    """The shape of a log."""

    events: int
    block_lines: int = 500
    partitions: int = 1
    start_ms: int = 1_750_000_000_000
    """Simulated time of the first event."""
    seed: int = 1


class LogEntry(NamedTuple):
    """One message of topic `blocks`."""

    value: bytes
    lines: int
    """0 for a tick."""
    raw_bytes: int
    end_ms: int
    """Simulated time behind it."""


class PartitionTraffic:
    """The log of one partition. Iterate over it once; then `outcomes` has the expected outcomes of the lines."""

    def __init__(self, shape: Shape, partition: int = 0) -> None:
        self._shape = shape
        self._partition = partition
        self._random = random.Random(f"{shape.seed}/{partition}")
        self._gap_ms = 1000 * shape.partitions / RATE_PER_S
        self._seconds: deque[tuple[int, str, str]] = deque()
        self._recent: deque[tuple[bytes, bytes]] = deque(maxlen=_RESENT_FROM)
        self._views: deque[str] = deque(["pv-0"], maxlen=1000)
        self._people = [self._person() for _ in range(_ADDRESSES)]
        self.start_ms = shape.start_ms
        self.outcomes: Counter[str] = Counter()
        """Outcome in the ledger -> lines, once every page view is closed."""

    def __iter__(self) -> Iterator[LogEntry]:
        """Blocks, and a tick a simulated second."""
        shape, at_ms, made, batch = self._shape, float(self._shape.start_ms), 0, 0
        next_tick_ms = shape.start_ms + 1000
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        while made < shape.events:
            count = min(shape.block_lines, shape.events - made)
            first_ms = int(at_ms)
            lines = []
            for _ in range(count):
                lines.append(self._line(int(at_ms)))
                at_ms += self._gap_ms
            text = b"".join(lines)
            made += count
            batch += 1
            header = BlockHeader(
                1, str(uuid.UUID(int=(self._partition << 64) + batch)), 0, 1, 0, count, self._partition, 0, first_ms
            )
            yield LogEntry(encode_block(header, compressor.compress(text)), count, len(text), int(at_ms))
            while next_tick_ms <= at_ms:
                yield self.tick(next_tick_ms)
                next_tick_ms += 1000

    def tick(self, moment_ms: int) -> LogEntry:
        """The watermark message that the bridge writes at `moment_ms`."""
        return LogEntry(encode_control(WatermarkMessage({SHARD: moment_ms - SLACK_MS}, {SHARD: []})), 0, 0, moment_ms)

    def _line(self, at_ms: int) -> bytes:
        kind = self._kind(at_ms)
        self.outcomes[_OUTCOME_OF[kind]] += 1
        if kind == "copy":
            before, after = self._recent[self._random.randrange(len(self._recent))]
            return before + b"%d" % at_ms + after
        if kind == "engagement":
            _, page_view_id, person = self._seconds.popleft()
            line = self._engagement(page_view_id, person, at_ms)
        else:
            line = self._first_hand(kind, at_ms)
        before, mark, rest = line.partition(b'"received_at":')
        self._recent.append((before + mark, rest[13:]))
        return line

    def _kind(self, at_ms: int) -> str:
        if self._seconds and self._seconds[0][0] <= at_ms:
            return "engagement"
        draw = self._random.random() * sum(SHARES.values())
        for kind, share in SHARES.items():
            draw -= share
            if draw < 0 and (kind != "copy" or self._recent):
                return kind
        return "redirect"

    def _person(self) -> str:
        """The end of a stored line: its sender."""
        octets = ".".join(str(self._random.randrange(1, 255)) for _ in range(2))
        agent = self._random.choice(HUMANS).text
        return f'"ip":"198.{18 + self._random.randrange(2)}.{octets}","user_agent":"{agent}",{_OF_KEY}'

    def _id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128)))

    def _engagement(self, page_view_id: str, person: str, at_ms: int) -> bytes:
        dwell = self._random.randrange(90_000)
        return (
            f'{{"event_type":"engagement","event_id":"{self._id()}","page_view_id":"{page_view_id}","occurred_at":{at_ms},'
            f'"visitor_id":"{page_view_id[::-1]}","dwell_ms":{dwell},"visible_ms":{dwell // 2},"scroll_pct":{dwell % 101},'
            f'"properties":"{{\\"player\\":\\"html5\\",\\"experiment\\":{dwell % 20},\\"layout\\":\\"wide\\"}}",'
            f'"received_at":{at_ms},{person}'
        ).encode()

    def _first_hand(self, kind: str, at_ms: int) -> bytes:
        rng = self._random
        person = rng.choice(self._people)
        number = int(rng.paretovariate(1.1)) % 5000
        section = _SECTIONS[number % len(_SECTIONS)]
        is_page = kind in ("page_view", "redirect", "bot")
        view = self._id() if is_page else rng.choice(self._views)
        event_type = "page_view" if kind == "bot" else kind
        fields = [
            f'{{"event_type":"{event_type}","event_id":"{self._id()}","page_view_id":"{view}","occurred_at":{at_ms - 150},'
            f'"visitor_id":"{view[::-1]}",'
        ]
        campaign = rng.choice(CAMPAIGNS)
        if is_page:
            query = f"?utm_source=mail&utm_medium=email&utm_campaign={campaign}" if number % 4 == 0 else ""
            url = f"https://www.example.com/{section}/{number}/the-title-of-an-article-as-it-stands-in-its-address{query}"
            referrer = rng.choice(_REFERRERS)
            fields.append(f'"url":"{url}",' + (f'"referrer":"{referrer}",' if referrer else ""))
        if kind in ("ad_impression", "ad_click"):
            fields.append(
                f'"article_id":"article-{number}","campaign_id":"{campaign}","ad_slot":{1 + number % 3},'
                f'"creative_id":"creative-{rng.randrange(500)}","revenue_micros":{rng.randrange(5000)},'
            )
        elif kind == "redirect":
            fields.append(f'"article_id":"article-{number}","cost_micros":{rng.randrange(90_000)},')
        else:
            fields.append(f'"article_id":"article-{number}","author_id":"author-{number % 97}","section":"{section}",')
        experiment = rng.randrange(20)
        fields.append(
            f'"properties":"{{\\"layout\\":\\"wide\\",\\"experiment\\":{experiment},\\"consent\\":\\"full\\"}}",'
            f'"received_at":{at_ms},'
        )
        if kind == "page_view":
            self._views.append(view)
            if rng.random() < JOINED_SHARE:
                self._seconds.append((at_ms + SECOND_AFTER_MS, view, person))
        if kind == "bot":
            ip = person.partition(',"user_agent"')[0]
            person = f'{ip},"user_agent":"{rng.choice(BOTS).text}",{_OF_KEY}'
        return ("".join(fields) + person).encode()
