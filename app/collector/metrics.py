"""The metrics of the collector."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

REQUESTS: Final = Counter("instream_collector_requests", "Requests answered", ["method", "status"])
LINES: Final = Counter("instream_collector_lines", "Lines in acknowledged batches", ["verdict"])
TAG_EVENTS: Final = Counter(
    "instream_collector_tag_events", "Events of other tags in acknowledged batches", ["tag", "kind", "verdict"]
)
BATCHES: Final = Counter("instream_collector_batches", "Batches by outcome", ["outcome"])
BLOCKS: Final = Counter("instream_collector_blocks", "Blocks sealed")
BLOCKS_PER_BATCH: Final = Histogram(
    "instream_collector_blocks_per_batch", "Blocks in a batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
LINES_PER_BLOCK: Final = Histogram(
    "instream_collector_lines_per_block", "Events in a block", buckets=(1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
)
BUFFERED_BYTES: Final = Gauge("instream_collector_buffered_bytes", "Bytes of events in memory")
PUT_FAILURES: Final = Counter("instream_collector_put_failures", "Failed calls, for Kinesis failed records", ["service"])
RESEND_BYTES: Final = Gauge("instream_collector_resend_bytes", "Blocks that wait to be put to Kinesis again")
RESEND_DROPPED: Final = Counter("instream_collector_resend_dropped", "Blocks left to the audit", ["reason"])
ACK_SECONDS: Final = Histogram(
    "instream_collector_ack_seconds",
    "From a request's arrival to its answer 200",
    buckets=(0.01, 0.03, 0.1, 0.3, 0.5, 1, 1.5, 2, 3, 5, 10, 30),
)
CLOCK_SKEW_S: Final = Gauge("instream_collector_clock_skew_seconds", "This clock less S3's, as far as it is proven")
CONNECTIONS: Final = Gauge("instream_collector_connections", "Open connections of clients")
CONNECTIONS_CLOSED: Final = Counter(
    "instream_collector_connections_closed", "Connections that the collector ended, by reason", ["reason"]
)
CLIENT_FAULTS: Final = Counter("instream_collector_client_faults", "Faults of clients, by kind", ["kind"])
REFUSALS: Final = Counter("instream_collector_refusals", "Refused requests, by the code of the answer", ["code"])
PARSING: Final = Gauge("instream_collector_parsing", "Requests that wait for the parser or are parsed")
STORAGE_FAULT: Final = Gauge("instream_collector_storage_fault", "1 while S3 or the registry fails; /ready says why")
WRITE_KEYS: Final = Gauge("instream_collector_write_keys", "Write keys in force")
WRITE_KEYS_FAULT: Final = Gauge("instream_collector_write_keys_fault", "1 while WRITE_KEYS_FILE does not fit")
