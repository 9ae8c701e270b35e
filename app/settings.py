"""Every setting: one frozen, validated object, read once from the environment (prefix `INSTREAM_`).

Every number has a lowest and a highest value; a bound says why it is there where that is not obvious. A variable with the
prefix that is declared neither here nor in `app.local.stack.settings` is refused (`app.variables`).

AWS credentials, region and endpoint are not ours: boto3 reads `AWS_*` and `AWS_ENDPOINT_URL` itself. Moving from the local
stack to AWS is a change of environment, not of code.
"""

import math
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from app.core.retention import LEAST_DAYS, Retention
from app.core.rules import JoinRules
from app.kafka_access import KafkaAccess
from app.setting_types import (
    AccountId,
    BucketName,
    CertificateKey,
    CookieDomain,
    CookieName,
    DatabaseName,
    Host,
    IamRole,
    KmsKey,
    Networks,
    Origins,
    Region,
    RoleUrls,
    S3Url,
    Servers,
    StreamName,
    TableName,
    WarehouseName,
    WorkgroupName,
    WriteKeys,
)
from app.variables import MOST_PORT, read
from app.warehouse_url import WarehouseUrl

MIB: Final = 1024**2
GIB: Final = 1024**3
LEAST_S: Final = 0.001
"""Times are counted in whole milliseconds."""
HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
MOST_PARTITIONS: Final = 1024
MINUTE_MS: Final = 60_000


class Settings(KafkaAccess):
    """The pipeline's settings; each is documented where it is declared."""

    # --- where this installation keeps its run state; HOME is declared in `app.variables`
    data_dir: Path | None = None
    """Where a worker keeps its RocksDB; one stable directory a process. Default: HOME/data/<role>."""

    # --- the cluster
    epoch: int = Field(1, ge=1, le=1_000_000)
    """Raised, with no open batches, for a new Kafka cluster or another number of partitions."""
    partitions: int = Field(32, ge=1, le=MOST_PARTITIONS)
    """Partitions of `blocks`, `rows` and `manifests`; fixed for an epoch."""
    checkpoint_partitions: int = Field(8, ge=1, le=256)
    """Partitions of topic `checkpoints`: how many bridge workers can share the shards."""
    kafka: Servers = "127.0.0.1:9092"
    """Bootstrap servers, `host:port`, comma separated; `app.kafka_access` has the settings of TLS and passwords."""
    replication_factor: int = Field(3, ge=1, le=15)
    """Replicas of each topic; 1 on the local stack."""
    min_insync_replicas: int = Field(2, ge=1, le=15)
    """Replicas that must have a message before it is acknowledged; 1 on the local stack."""
    max_message_bytes: int = Field(16 * MIB, ge=4 * MIB, le=256 * MIB)
    """Largest Kafka message; a step that would be larger goes on in the next one."""

    # --- AWS names
    bucket: BucketName = "instream"
    """S3 bucket of raw files, staged and final data, transactions and manifests."""
    bucket_owner: AccountId | None = None
    """AWS account that owns the bucket, 12 digits: S3 then refuses every call to a bucket of that name elsewhere."""
    bucket_versioning: bool = True
    """`init` turns on versions, and expires old ones of staged files after a week if the bucket has no lifecycle."""
    bucket_kms_key: KmsKey | None = None
    """KMS key with which `init` lets the bucket encrypt: an ARN, an id or an alias. Default: S3's own keys."""
    stream: StreamName = "instream"
    """Kinesis stream that carries the blocks."""
    stream_shards: int = Field(0, ge=0, le=10_000)
    """Shards of a stream that `init` makes; 0 makes it on-demand, so that Kinesis adds shards by itself."""
    stream_retention_h: int = Field(24, ge=24, le=8760)
    """How long Kinesis keeps records, in hours; `init` raises it and never lowers it. Bounds: Kinesis quotas."""
    registry_table: TableName = "instream-registry"
    """DynamoDB table of batches."""
    registry_protected: bool = True
    """`init` turns on the registry's deletion protection and point-in-time recovery."""

    # --- how long things are kept (days; 0: for ever); `init` writes it into the bucket's lifecycle and the registry
    retention_raw_days: int = Field(0, ge=0, le=36_500)
    """Raw files and the index of their ids; a complete batch's registry item goes 30 days later."""
    retention_data_days: int = Field(0, ge=0, le=36_500)
    """Files of the flows and of the ledger, which the warehouse has loaded."""
    retention_manifests_days: int = Field(90, ge=0, le=36_500)
    """Manifests, which nobody reads once their transaction is loaded."""
    retention_exports_days: int = Field(30, ge=0, le=36_500)
    """Exports of the registry (`instream athena missing`)."""
    retention_log_days: int = Field(400, ge=0, le=36_500)
    """Rows of delivery_log; a partition's last one and quarantined ones stay."""

    # --- time (seconds)
    join_window_s: float = Field(90, ge=LEAST_S, le=DAY_S)
    """A second event is fired this long after its first."""
    join_grace_s: float = Field(30, ge=0, le=DAY_S)
    """How much later than the window a second may still be received and join."""
    join_reorder_s: float = Field(10, ge=0, le=DAY_S)
    """How much earlier than its first a second may be received and join."""
    slack_s: float = Field(10, ge=0, le=DAY_S)
    """How long after its receipt a block may reach Kinesis without being late."""
    dedup_window_s: float = Field(604_800, ge=1, le=365 * DAY_S)
    """How long an event id is remembered; older blocks are refused."""
    commit_interval_s: float = Field(10, ge=LEAST_S, le=DAY_S)
    """The sink commits a transaction at least this often while there are rows."""
    commit_bytes: int = Field(64 * MIB, ge=1, le=GIB)
    """... or when this many bytes of row messages have gathered."""
    idle_commit_interval_s: float = Field(60, ge=LEAST_S, le=DAY_S)
    """How often a partition without rows commits an empty transaction, so that its stream time is seen to move."""
    delivery_interval_s: float = Field(5, ge=LEAST_S, le=DAY_S)
    """How often delivery looks for ready transactions; topic `manifests` wakes it sooner."""
    audit_interval_s: float = Field(60, ge=LEAST_S, le=DAY_S)
    """How often the audit judges open batches."""
    audit_grace_s: float = Field(300, ge=0, le=365 * DAY_S)
    """How old an open batch must be before it is judged."""
    certificate_key: CertificateKey | None = Field(default=None, repr=False)
    """Signs the certificates of hours, with HMAC-SHA256; without it they carry a plain SHA-256. Never shown."""
    tick_interval_s: float = Field(1, ge=LEAST_S, le=HOUR_S)
    """How often a bridge worker publishes its marks."""
    stall_timeout_s: float = Field(120, ge=1, le=DAY_S)
    """A worker whose input waits this long without progress exits and is restarted."""

    freshness_s: float = Field(300, ge=1, le=DAY_S)
    """The promise: a line is in the warehouse when it is so old. `instream status` says late beyond it."""
    role_urls: RoleUrls = ()
    """The workers' pages, `role=http://host:port`, comma separated, a role as often as it has workers; `instream status`
    asks them. The local stack knows its own."""

    # --- input that cannot be read
    dead_letter_share: float = Field(0.05, ge=0.001, le=1)
    """The ETL stops when more than this share of a partition's last blocks, about 1,000, cannot be read; 1: never."""
    dead_letter_least: int = Field(10, ge=1, le=1000)
    """... but not before so many of them could not be read."""

    state_cache_bytes: int = Field(64 * MIB, ge=8 * MIB, le=1024 * GIB)
    """Memory of an ETL worker's RocksDB for its partitions: blocks and write buffers. Filters add 3 bytes an id."""

    # --- collector
    collector_host: Host = "127.0.0.1"
    """Where the collector listens."""
    collector_port: int = Field(8000, ge=0, le=MOST_PORT)
    """Port of the collector's HTTP server."""
    example_page: bool = False
    """Whether the collector serves an example of a tagged page at /example/; it posts with the key `demo`."""
    write_keys: WriteKeys = Field(default={}, repr=False)
    """`key:browser,key:server,...`: who may post, and whether the key's events may name their own ip and user_agent."""
    write_keys_file: Path | None = None
    """A file of more keys, `key:kind` a line; it is read again every 2 s, so keys change without a restart."""
    key_requests_per_s: float = Field(0, ge=0, le=1_000_000)
    """Most requests a second with one write key at one collector, with a burst of 2 s; more is 429. 0: no limit."""
    address_requests_per_s: float = Field(0, ge=0, le=1_000_000)
    """Most requests a second of one client address (IPv6: of one /64); set TRUSTED_PROXIES too. 0: no limit."""
    allowed_origins: Origins = ("*",)
    """Origins that browsers may post from, comma separated; `*` for any."""
    visitor_cookie: CookieName | None = None
    """Name of a cookie with a visitor's id that the collector sets (`app.collector.visitor_cookie`); unset: no cookie."""
    visitor_cookie_domain: CookieDomain | None = None
    """... its Domain, so that the page's host can read it: the site, as `example.com`. Unset: the collector's host alone."""
    visitor_cookie_days: int = Field(395, ge=1, le=400)
    """... how long it stays after the first visit; browsers keep no cookie for more than 400 days."""
    trusted_proxies: Networks = ()
    """Networks (CIDR) whose X-Forwarded-For is believed, comma separated."""
    linger_ms: int = Field(1000, ge=0, le=MINUTE_MS)
    """How long a batch waits for more requests."""
    batch_bytes: int = Field(4 * MIB, ge=1, le=256 * MIB)
    """... or until it has this many bytes."""
    max_body_bytes: int = Field(4 * MIB, ge=1, le=256 * MIB)
    """Largest request body as sent; more is 413."""
    max_decompressed_bytes: int = Field(16 * MIB, ge=1, le=GIB)
    """Largest request body after gzip; more is 413."""
    max_lines: int = Field(10_000, ge=1, le=60_000)
    """Most lines in one request; more is 413."""
    request_timeout_s: float = Field(30, ge=LEAST_S, le=HOUR_S)
    """Longest time for a request's body to arrive, and for its batch to become durable."""
    parse_timeout_s: float = Field(10, ge=LEAST_S, le=HOUR_S)
    """Longest time for a request to wait for the parser and to be parsed; more is 503 with Retry-After."""
    max_connections: int = Field(2000, ge=1, le=1_000_000)
    """Most connections of clients. A new one takes the place of the oldest idle one, else it is told 503."""
    head_timeout_s: float = Field(10, ge=LEAST_S, le=HOUR_S)
    """Longest time from a connection's start, or from the first byte of a later request, to the end of its headers."""
    keepalive_timeout_s: float = Field(75, ge=LEAST_S, le=HOUR_S)
    """How long a connection may wait for its next request; longer than the load balancer keeps it."""
    max_buffered_bytes: int = Field(128 * MIB, ge=1, le=1024 * GIB)
    """Bytes of events in memory, waiting or in flight; more is 503 with Retry-After."""
    kernels: bool = True
    """Whether compiled kernels do the work of many lines at once; off is slower, with the same results."""
    max_clock_skew_s: float = Field(5, ge=1, le=HOUR_S)
    """A collector further than this off S3's clock answers 503. S3 tells its time in whole seconds."""

    # --- warehouse
    warehouse_url: WarehouseUrl = Field(default="postgresql://instream@127.0.0.1:5439/instream", repr=False)
    """Redshift, or its stand-in, as a libpq URL. It may hold a password: `app.warehouse_url.redacted_url` shows it."""
    warehouse_cluster: WarehouseName | None = None
    """A provisioned cluster's name: IAM gives the password of WAREHOUSE_URL's user (`redshift:GetClusterCredentials`)."""
    warehouse_workgroup: WarehouseName | None = None
    """A serverless workgroup's name: IAM gives user and password (`redshift-serverless:GetCredentials`)."""
    copy_iam_role: IamRole = "default"
    """ARN of the role with which Redshift reads the bucket, or `default`."""
    copy_region: Region | None = None
    """The bucket's region, where it is not the warehouse's."""

    # --- Athena: SQL over the files of the bucket
    athena_database: DatabaseName = "instream"
    """Database of Athena's catalogue in which `instream athena init` makes the tables."""
    athena_workgroup: WorkgroupName | None = None
    """Athena's workgroup; a workgroup may name the place of results itself."""
    athena_output: S3Url | None = None
    """Where Athena writes its results, `s3://bucket/prefix/`. Needed unless the workgroup names it."""

    # --- enrichment
    geo_database: Path | None = None
    """MaxMind-format file (.mmdb) with country, region and city; without it those columns are NULL."""
    crawler_networks: Path | None = None
    """Extra file of networks of crawlers or data centres: `CIDR name` a line, `#` for comments."""
    bot_agents: Path | None = None
    """Extra file of rules for user agents: `bot NAME PATTERN` or `people PATTERN` a line, `#` for comments."""

    # --- operation
    web_host: Host = "127.0.0.1"
    """Where /health, /ready and /metrics listen."""
    web_port: int = Field(0, ge=0, le=MOST_PORT)
    """Port of /health, /ready and /metrics; 0 takes a free one."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """`auto`: console on a terminal, JSON otherwise."""
    crash_plan: Path | None = None
    """For tests of recovery alone: a file that names the call at which a process ends itself (`app.crash.points`)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Settings that only fit together."""
        longest = self.join_window_s + self.join_grace_s + self.join_reorder_s
        if self.dedup_window_s <= longest:
            raise ValueError(
                f"INSTREAM_DEDUP_WINDOW_S: {self.dedup_window_s:g} s must exceed the {longest:g} s in which a page view may "
                "still be joined (INSTREAM_JOIN_WINDOW_S + JOIN_GRACE_S + JOIN_REORDER_S)"
            )
        if self.warehouse_cluster is not None and self.warehouse_workgroup is not None:
            raise ValueError(
                "INSTREAM_WAREHOUSE_CLUSTER and INSTREAM_WAREHOUSE_WORKGROUP: a warehouse is either provisioned or "
                "serverless, unset one of them"
            )
        least = {
            "retention_raw_days": max(LEAST_DAYS, math.ceil(2 * self.dedup_window_s / DAY_S)),
            "retention_data_days": LEAST_DAYS, "retention_manifests_days": LEAST_DAYS, "retention_log_days": LEAST_DAYS,
        }  # fmt: skip
        for name, days in least.items():
            if 0 < (found := getattr(self, name)) < days:
                raise ValueError(
                    f"INSTREAM_{name.upper()}: {found} days are too few: at least {days}, so that nothing expires that may "
                    "still be loaded or sent again (raw files: twice INSTREAM_DEDUP_WINDOW_S); 0: for ever"
                )
        if 0 < self.retention_log_days <= self.retention_manifests_days:
            raise ValueError(
                f"INSTREAM_RETENTION_LOG_DAYS: {self.retention_log_days} days are too few: more than "
                "INSTREAM_RETENTION_MANIFESTS_DAYS, so that a load that still has its files has its row; 0: for ever"
            )
        if self.min_insync_replicas > self.replication_factor:
            raise ValueError(
                f"INSTREAM_MIN_INSYNC_REPLICAS: {self.min_insync_replicas} exceeds INSTREAM_REPLICATION_FACTOR, which is "
                f"{self.replication_factor}"
            )
        return self

    @cached_property
    def join(self) -> JoinRules:
        """The join's bounds in milliseconds."""
        return JoinRules(int(self.join_window_s * 1000), int(self.join_grace_s * 1000), int(self.join_reorder_s * 1000))

    @property
    def retention(self) -> Retention:
        """Days for which the parts of the bucket and complete registry items are kept."""
        return Retention(
            self.retention_raw_days, self.retention_data_days, self.retention_manifests_days, self.retention_exports_days,
            self.retention_log_days,
        )  # fmt: skip

    @property
    def dedup_window_ms(self) -> int:
        """The dedup window in milliseconds."""
        return int(self.dedup_window_s * 1000)

    def data_dir_of(self, role: str) -> Path:
        """Where a worker of `role` keeps its RocksDB."""
        return self.data_dir or self.home / "data" / role


LOCAL_STACK_NAMES: Final = frozenset({"aws_port", "kafka_jars", "kafka_port", "restart_healthy_s", "warehouse_port"})
"""Declared in `app.local.stack.settings`; they may be in the environment of any process of a local stack."""
KNOWN_NAMES: Final = LOCAL_STACK_NAMES | Settings.model_fields.keys()
"""Every setting there is, in lower case without the prefix."""


def read_settings() -> Settings:
    """The settings of this process.

    Raises:
        ConfigurationError: a value is refused, or a variable is no setting; the text names each and the remedy.
    """
    return read(Settings, KNOWN_NAMES)
