"""Whether a topic that is there is as the pipeline needs it, whoever made it (rules T4, E5, S5).

A value that is safer than asked for fits: a longer retention, a larger message, more replicas. A setting that the cluster
does not know (Redpanda has no min.insync.replicas) is passed over.
"""

from collections.abc import Callable, Mapping
from typing import Final

from app.settings import Settings
from app.topics import TopicSpec

_UNLIMITED: Final = -1


def _same(found: str, wanted: str) -> bool:
    return found.replace(" ", "") == wanted


def _at_least(found: str, wanted: str) -> bool:
    return int(found) >= int(wanted)


def _at_least_or_unlimited(found: str, wanted: str) -> bool:
    return int(found) == _UNLIMITED or (int(wanted) != _UNLIMITED and int(found) >= int(wanted))


_FITS: Final[dict[str, Callable[[str, str], bool]]] = {
    "cleanup.policy": _same,
    "retention.ms": _at_least_or_unlimited,
    "retention.bytes": _at_least_or_unlimited,
    "message.timestamp.type": _same,
    "max.message.bytes": _at_least,
    "min.insync.replicas": _at_least,
    "unclean.leader.election.enable": _same,
}
"""Setting of a topic -> whether a found value does for the wanted one.

Without the right values data is lost in silence: a timestamp of the producer lets stream time run ahead (rule T4), a short
retention or compaction takes messages away that no reader has had (rules E5, S5), a broker that is behind and becomes leader
takes acknowledged ones away.
"""


def faults_of(spec: TopicSpec, found: Mapping[str, str], replicas: int, settings: Settings) -> list[str]:
    """What is wrong with a topic, a line a fault, each with the remedy; empty if it does.

    Args:
        spec: the topic as it must be.
        found: its configuration in the cluster; empty where the cluster does not tell it.
        replicas: the fewest replicas of any of its partitions.
        settings: the process's.
    """
    faults = []
    wrong = {
        name: wanted for name, wanted in spec.config.items() if name in found and not _FITS[name](found[name], wanted)
    }  # fmt: skip
    if wrong:
        values = ", ".join(f"{name}={found[name]} in place of {wanted}" for name, wanted in wrong.items())
        more = ",".join(f"{name}={wanted}" for name, wanted in wrong.items())
        faults.append(f"topic {spec.name} has {values}: {_alter(spec, settings)} --add-config {more}")
    if replicas < settings.replication_factor:
        faults.append(
            f"topic {spec.name} has {replicas} replicas in place of {settings.replication_factor}: "
            f"add some (kafka-reassign-partitions.sh), or set INSTREAM_REPLICATION_FACTOR={replicas}"
        )
    if (least := int(found.get("min.insync.replicas", "1"))) > replicas:
        faults.append(
            f"topic {spec.name} has min.insync.replicas={least} and {replicas} replicas, so it takes no message: "
            f"{_alter(spec, settings)} --add-config min.insync.replicas={settings.min_insync_replicas}"
        )
    return faults


def _alter(spec: TopicSpec, settings: Settings) -> str:
    server = f"kafka-configs.sh --bootstrap-server {settings.kafka}"
    return f"{server} --alter --entity-type topics --entity-name {spec.name}"
