"""Every setting: one frozen, validated object, read once from the environment (prefix `INSTREAM_`).

AWS credentials, region and endpoint are not ours: boto3 reads `AWS_*` and `AWS_ENDPOINT_URL` itself. Moving from the local
stack to AWS is a change of environment, not of code.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core.rules import JoinRules
from app.errors import ConfigurationError

KeyKind = Literal["browser", "server"]


class Settings(BaseSettings):
    """The pipeline's settings; each is documented where it is declared."""

    model_config = SettingsConfigDict(env_prefix="INSTREAM_", frozen=True, extra="ignore")

    # --- where this installation keeps its run state
    home: Path = Path(".instream")
    """Run state of the local stack, and each worker's RocksDB below `data/<role>`."""
    data_dir: Path | None = None
    """Where a worker keeps its RocksDB; one stable directory a process. Default: HOME/data/<role>."""

    # --- the cluster
    epoch: int = Field(1, ge=1)
    """Raised, with no open batches, for a new Kafka cluster or another number of partitions."""
    partitions: int = Field(32, ge=1, le=1024)
    """Partitions of `blocks`, `rows` and `manifests`; fixed for an epoch."""
    checkpoint_partitions: int = Field(8, ge=1, le=256)
    """Partitions of topic `checkpoints`: how many bridge workers can share the shards."""
    kafka: str = "127.0.0.1:9092"
    """Bootstrap servers, `host:port`, comma separated."""
    replication_factor: int = Field(3, ge=1)
    """Replicas of each topic; 1 on the local stack."""
    min_insync_replicas: int = Field(2, ge=1)
    """Replicas that must have a message before it is acknowledged; 1 on the local stack."""
    max_message_bytes: int = Field(16 * 1024 * 1024, ge=4 * 1024 * 1024)
    """Largest Kafka message; a step that would be larger goes on in the next one."""

    # --- AWS names
    bucket: str = "instream"
    """S3 bucket of raw files, staged and final data, transactions and manifests."""
    stream: str = "instream"
    """Kinesis stream that carries the blocks."""
    registry_table: str = "instream-registry"
    """DynamoDB table of batches."""

    # --- time (seconds)
    join_window_s: float = Field(90, gt=0)
    """A second event is fired this long after its first."""
    join_grace_s: float = Field(30, ge=0)
    """How much later than the window a second may still be received and join."""
    join_reorder_s: float = Field(10, ge=0)
    """How much earlier than its first a second may be received and join."""
    slack_s: float = Field(10, ge=0)
    """How long after its receipt a block may reach Kinesis without being late."""
    dedup_window_s: float = Field(604_800, gt=0)
    """How long an event id is remembered; older blocks are refused."""
    commit_interval_s: float = Field(10, gt=0)
    """The sink commits a transaction at least this often while there are rows."""
    commit_bytes: int = Field(64 * 1024 * 1024, ge=1)
    """... or when this many bytes of row messages have gathered."""
    idle_commit_interval_s: float = Field(60, gt=0)
    """How often a partition without rows commits an empty transaction, so that its stream time is seen to move."""
    delivery_interval_s: float = Field(5, gt=0)
    """How often delivery looks for ready transactions; topic `manifests` wakes it sooner."""
    audit_interval_s: float = Field(60, gt=0)
    """How often the audit judges open batches."""
    audit_grace_s: float = Field(300, ge=0)
    """How old an open batch must be before it is judged."""
    tick_interval_s: float = Field(1, gt=0)
    """How often a bridge worker publishes its marks."""
    stall_timeout_s: float = Field(120, gt=0)
    """A worker whose input waits this long without progress exits and is restarted."""

    restart_healthy_s: float = Field(60, gt=0)
    """Local stack: a process that ran this long has recovered, its earlier deaths no longer delay its next start."""

    # --- input that cannot be read
    dead_letter_share: float = Field(0.05, gt=0, le=1)
    """The ETL stops when more than this share of a partition's last blocks, about 1,000, cannot be read; 1: never."""
    dead_letter_least: int = Field(10, ge=1)
    """... but not before so many of them could not be read."""

    state_cache_bytes: int = Field(64 * 1024 * 1024, ge=8 * 1024 * 1024)
    """Memory of an ETL worker's RocksDB for its partitions: blocks and write buffers. Filters add 1.4 bytes an id."""

    # --- collector
    collector_host: str = "127.0.0.1"
    collector_port: int = Field(8000, ge=0, le=65535)
    """Port of the collector's HTTP server."""
    write_keys: Annotated[dict[str, KeyKind], NoDecode] = {}
    """`key:browser,key:server,...`: who may post, and whether the key's events may name their own ip and user_agent."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ("*",)
    """Origins that browsers may post from, comma separated; `*` for any."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Networks (CIDR) whose X-Forwarded-For is believed, comma separated."""
    linger_ms: int = Field(1000, ge=0)
    """How long a batch waits for more requests."""
    batch_bytes: int = Field(4 * 1024 * 1024, ge=1)
    """... or until it has this many bytes."""
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1)
    """Largest request body as sent; more is 413."""
    max_decompressed_bytes: int = Field(16 * 1024 * 1024, ge=1)
    """Largest request body after gzip; more is 413."""
    max_lines: int = Field(10_000, ge=1, le=60_000)
    """Most lines in one request; more is 413."""
    request_timeout_s: float = Field(30, gt=0)
    """Longest time for a request's body to arrive, and for its batch to become durable."""
    max_buffered_bytes: int = Field(128 * 1024 * 1024, ge=1)
    """Bytes of events in memory, waiting or in flight; more is 503 with Retry-After."""
    max_clock_skew_s: float = Field(5, gt=0)
    """A collector further than this off S3's clock answers 503."""

    # --- warehouse
    warehouse_url: str = "postgresql://instream@127.0.0.1:5439/instream"
    """Redshift, or its stand-in, as a libpq URL."""
    copy_iam_role: str = "default"
    """ARN of the role with which Redshift reads the bucket, or `default`."""

    # --- enrichment
    geo_database: Path | None = None
    """MaxMind-format file (.mmdb) with country, region and city; without it those columns are NULL."""
    crawler_networks: Path | None = None
    """Extra file of known crawler networks: `CIDR name` a line, `#` for comments."""

    # --- operation
    web_host: str = "127.0.0.1"
    """Where /health, /ready and /metrics listen."""
    web_port: int = Field(0, ge=0, le=65535)
    """Port of /health, /ready and /metrics; 0 takes a free one."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """`auto`: console on a terminal, JSON otherwise."""
    crash_plan: Path | None = None
    """For tests of recovery alone: a file that names the call at which a process ends itself (`app.crash.points`)."""

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, object]) -> dict[str, object]:
        """Comma-separated texts become what they stand for."""
        out = dict(values)
        for name in ("allowed_origins", "trusted_proxies"):
            if isinstance(text := out.get(name), str):
                out[name] = tuple(part.strip() for part in text.split(",") if part.strip())
        if isinstance(text := out.get("write_keys"), str):
            pairs = [part.strip().rpartition(":") for part in text.split(",") if part.strip()]
            if any(not key for key, _, _ in pairs):
                raise ValueError("INSTREAM_WRITE_KEYS: give key:browser or key:server, comma separated")
            out["write_keys"] = {key: kind for key, _, kind in pairs}
        return out

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Settings that only fit together."""
        longest = self.join_window_s + self.join_grace_s + self.join_reorder_s
        if self.dedup_window_s <= longest:
            raise ValueError(
                f"INSTREAM_DEDUP_WINDOW_S: {self.dedup_window_s:g} s must exceed the {longest:g} s in which a page view may "
                "still be joined (INSTREAM_JOIN_WINDOW_S + JOIN_GRACE_S + JOIN_REORDER_S)"
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
    def dedup_window_ms(self) -> int:
        """The dedup window in milliseconds."""
        return int(self.dedup_window_s * 1000)

    def data_dir_of(self, role: str) -> Path:
        """Where a worker of `role` keeps its RocksDB."""
        return self.data_dir or self.home / "data" / role


def read_settings() -> Settings:
    """The settings of this process.

    Raises:
        ConfigurationError: a variable does not validate; the text names each variable and what is wrong with it.
    """
    try:
        return Settings()
    except ValidationError as exc:
        raise ConfigurationError("settings do not fit: " + "; ".join(map(_fault, exc.errors()))) from exc


def _fault(error: ErrorDetails) -> str:
    """One line on one fault: the variable, and what is wrong with it; our own messages name their variable themselves."""
    message = error["msg"].removeprefix("Value error, ")
    return f"INSTREAM_{str(error['loc'][0]).upper()}: {message}" if error["loc"] else message
