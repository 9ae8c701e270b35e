"""The Kafka topics: names, partition counts and configuration; the epoch is part of every name."""

from typing import Final, NamedTuple

from app.settings import Settings

DAY_MS: Final = 86_400_000


class TopicSpec(NamedTuple):
    """A topic as it must exist."""

    name: str
    partitions: int
    config: dict[str, str]


class Topics(NamedTuple):
    """Every topic of one epoch."""

    blocks: TopicSpec
    rows: TopicSpec
    dead_letters: TopicSpec
    manifests: TopicSpec
    checkpoints: TopicSpec
    checkpoints_table: TopicSpec
    audit: TopicSpec
    articles: TopicSpec
    campaigns: TopicSpec


def topics_of(settings: Settings) -> Topics:
    """The topics that `settings` (epoch, partitions, dedup window, message sizes) call for.

    `blocks` and `rows` go by time alone and are stamped by the broker (rule T4); `rows` outlives `blocks` so that what a
    trimmed log lacks has expired (rule E5). `dead-letters` holds copies of what could not be read
    (`app.core.formats.dead_letter`), for people. `articles` and `campaigns` are compacted dimension tables that anyone may
    feed.
    """
    window_ms = int(settings.dedup_window_s * 1000)
    largest = str(settings.max_message_bytes)

    def log(name: str, partitions: int, retention_ms: int) -> TopicSpec:
        return TopicSpec(f"{name}-e{settings.epoch}", partitions, {
            "cleanup.policy": "delete", "retention.ms": str(retention_ms), "retention.bytes": "-1",
            "message.timestamp.type": "LogAppendTime", "max.message.bytes": largest,
            "min.insync.replicas": str(settings.min_insync_replicas), "unclean.leader.election.enable": "false",
        })  # fmt: skip

    def compacted(name: str, partitions: int) -> TopicSpec:
        return TopicSpec(name, partitions, {
            "cleanup.policy": "compact", "min.insync.replicas": str(settings.min_insync_replicas),
            "unclean.leader.election.enable": "false",
        })  # fmt: skip

    return Topics(
        blocks=log("blocks", settings.partitions, 7 * DAY_MS),
        rows=log("rows", settings.partitions, max(window_ms, 7 * DAY_MS) + 7 * DAY_MS),
        dead_letters=log("dead-letters", settings.partitions, 30 * DAY_MS),
        manifests=log("manifests", settings.partitions, 7 * DAY_MS),
        checkpoints=log("checkpoints", settings.checkpoint_partitions, 30 * DAY_MS),
        checkpoints_table=compacted(
            f"instream-bridge-e{settings.epoch}-checkpoints-changelog", settings.checkpoint_partitions
        ),
        audit=log("audit", 1, DAY_MS),
        articles=compacted("articles", 1),
        campaigns=compacted("campaigns", 1),
    )
