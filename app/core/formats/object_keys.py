"""The S3 key of each object in the bucket (a public contract).

    raw/dt=YYYY-MM-DD/hour=HH/<batch_id>.ndjson.zst                        the collector's batches
    jobdata/<txn_id>/<output>.<ext>                                        staged, before the commit
    transactions/<epoch>/<partition>/<number, 12 digits>.json              the commit records; never expired
    data/<output>/dt=YYYY-MM-DD/hour=HH/<txn_id>.<ext>                     committed files of every output
    manifests/dt=YYYY-MM-DD/hour=HH/<txn_id>/<output>.manifest, ready.json COPY manifests; ready.json is the last word
    loads/<load_id>/<output>.manifest                                      merged manifests of one warehouse load
    rebuilds/<load_id>/<output>/<txn_id>.<ext>                             files of a rebuild, until they are loaded
    repairs/<epoch>/<partition, 6 digits>/<offset, 12 digits>.step         steps that replace damaged ones of topic rows
    registry/<export>/data/<file>.json.gz                                  exports of the registry, made by DynamoDB

dt and hour are UTC: of the batch's id for raw, of the commit for the rest.
"""

import re
from datetime import UTC, datetime
from typing import Final

from app.core.formats.flows import BY_NAME

EXPORTS_PREFIX: Final = "registry/"
NUMBER_DIGITS: Final = 12
PARTITION_DIGITS: Final = 6
_TXN_ID: Final = re.compile(r"\d+-\d+-\d+-[0-9a-f]+")
_EXPORT: Final = re.compile(rf"{EXPORTS_PREFIX}(.+)/data/[^/]+")
_REPAIR: Final = re.compile(rf"repairs/(\d+)/(\d{{{PARTITION_DIGITS}}})/(\d{{{NUMBER_DIGITS}}})\.step")


def hour_path(moment_ms: int) -> str:
    """`dt=YYYY-MM-DD/hour=HH` of a moment (ms since the epoch), UTC."""
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("dt=%Y-%m-%d/hour=%H")


def raw_key(batch_id: str, moment_ms: int) -> str:
    """The raw file of a batch; `moment_ms` is the time in its id."""
    return f"raw/{hour_path(moment_ms)}/{batch_id}.ndjson.zst"


def txn_id(epoch: int, partition: int, number: int, random: str) -> str:
    """`<epoch>-<partition>-<number>-<random>`; `random` is hexadecimal."""
    return f"{epoch}-{partition}-{number}-{random}"


def staged_prefix(txn: str) -> str:
    """The prefix of a transaction's staged objects."""
    return f"jobdata/{txn}/"


def staged_key(txn: str, output: str) -> str:
    """The staged object of one output of a transaction."""
    return f"{staged_prefix(txn)}{output}.{BY_NAME[output].format.value}"


def chain_prefix(epoch: int, partition: int) -> str:
    """The prefix of a partition's commit records; their keys sort by number."""
    return f"transactions/{epoch}/{partition}/"


def record_key(epoch: int, partition: int, number: int) -> str:
    """The commit record of a transaction: every writer of this number has the same key."""
    return f"{chain_prefix(epoch, partition)}{number:0{NUMBER_DIGITS}d}.json"


def data_key(output: str, txn: str, committed_at_ms: int) -> str:
    """The final object of one output of a transaction."""
    return f"data/{output}/{hour_path(committed_at_ms)}/{txn}.{BY_NAME[output].format.value}"


def manifest_key(output: str, txn: str, committed_at_ms: int) -> str:
    """The COPY manifest of one output of a transaction."""
    return f"manifests/{hour_path(committed_at_ms)}/{txn}/{output}.manifest"


def ready_key(txn: str, committed_at_ms: int) -> str:
    """The object whose presence says that every file and manifest of a transaction is in place."""
    return f"manifests/{hour_path(committed_at_ms)}/{txn}/ready.json"


def load_manifest_key(load_id: str, output: str, version: int = 1) -> str:
    """The merged manifest of one output in one warehouse load, of files whose columns are of one version."""
    return f"loads/{load_id}/{output}.manifest" if version == 1 else f"loads/{load_id}/{output}.v{version}.manifest"


def rebuilt_key(load_id: str, output: str, txn: str) -> str:
    """A file of a rebuild, on its way into another schema."""
    return f"rebuilds/{load_id}/{output}/{txn}.{BY_NAME[output].format.value}"


def repairs_prefix(epoch: int, partition: int | None = None) -> str:
    """The prefix of the steps that replace damaged ones: of one partition, or of all; keys sort by partition and offset."""
    return f"repairs/{epoch}/" if partition is None else f"repairs/{epoch}/{partition:0{PARTITION_DIGITS}d}/"


def repair_key(epoch: int, partition: int, offset: int) -> str:
    """The step that replaces the message at `offset` of a partition of `rows`."""
    return f"{repairs_prefix(epoch, partition)}{offset:0{NUMBER_DIGITS}d}.step"


def repair_place(key: str) -> tuple[int, int, int] | None:
    """(epoch, partition, offset) of a repair's key; None if it is no such key."""
    found = _REPAIR.fullmatch(key)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


def is_txn_id(text: str) -> bool:
    """Whether `text` has the form of a transaction id."""
    return _TXN_ID.fullmatch(text) is not None


def export_of(key: str) -> str | None:
    """The export of the registry that a key is a file of; None if it is no such key."""
    found = _EXPORT.fullmatch(key)
    return None if found is None else found[1]
