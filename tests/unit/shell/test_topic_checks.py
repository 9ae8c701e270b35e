"""A topic that somebody else made is taken if it is at least as safe as ours; else the command that mends it is told."""

import pytest

from app.settings import Settings
from app.topic_checks import faults_of
from app.topics import topics_of

SETTINGS = Settings(kafka="b-1:9092")
ROWS = topics_of(SETTINGS).rows
TABLE = topics_of(SETTINGS).checkpoints_table


def test_every_topic_as_we_make_it_fits() -> None:
    for spec in topics_of(SETTINGS):
        assert faults_of(spec, spec.config, SETTINGS.replication_factor, SETTINGS) == []


@pytest.mark.parametrize(
    "safer",
    [
        {"retention.ms": "-1"}, {"retention.ms": str(10**15)}, {"max.message.bytes": str(10**9)},
        {"min.insync.replicas": "3"}, {"compression.type": "zstd"},
    ],
)  # fmt: skip
def test_what_is_safer_fits(safer: dict[str, str]) -> None:
    assert faults_of(ROWS, ROWS.config | safer, 3, SETTINGS) == []
    assert faults_of(ROWS, safer, 5, SETTINGS) == [], "what a cluster does not know is passed over"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cleanup.policy", "compact"), ("cleanup.policy", "compact,delete"), ("retention.ms", "604800000"),
        ("retention.bytes", "1073741824"), ("message.timestamp.type", "CreateTime"), ("max.message.bytes", "1048588"),
        ("min.insync.replicas", "1"), ("unclean.leader.election.enable", "true"),
    ],
)  # fmt: skip
def test_what_could_lose_data_is_refused_with_its_command(name: str, value: str) -> None:
    (fault,) = faults_of(ROWS, ROWS.config | {name: value}, 3, SETTINGS)
    assert f"topic rows-e1 has {name}={value} in place of {ROWS.config[name]}" in fault
    assert fault.endswith(
        "kafka-configs.sh --bootstrap-server b-1:9092 --alter --entity-type topics --entity-name rows-e1 "
        f"--add-config {name}={ROWS.config[name]}"
    )


def test_a_table_must_be_compacted() -> None:
    (fault,) = faults_of(TABLE, TABLE.config | {"cleanup.policy": "delete"}, 3, SETTINGS)
    assert "cleanup.policy=compact" in fault


def test_too_few_replicas_are_refused() -> None:
    (fault,) = faults_of(ROWS, ROWS.config, 2, SETTINGS)
    assert "has 2 replicas in place of 3" in fault
    few, stuck = faults_of(ROWS, ROWS.config, 1, SETTINGS)
    assert "has 1 replicas" in few
    assert "min.insync.replicas=2 and 1 replicas, so it takes no message" in stuck
