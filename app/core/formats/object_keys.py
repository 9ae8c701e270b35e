"""The S3 key of each object in the bucket (a public contract).

    raw/dt=YYYY-MM-DD/hour=HH/<batch_id>.ndjson.zst                        the collector's batches
    jobdata/<txn_id>/<output>.<ext>                                        staged, before the commit
    transactions/<epoch>/<partition>/<number, 12 digits>.json              the commit records; never expired
    data/<output>/dt=YYYY-MM-DD/hour=HH/<txn_id>.<ext>                     committed files of every output
    manifests/dt=YYYY-MM-DD/hour=HH/<txn_id>/<output>.manifest, ready.json COPY manifests; ready.json is the last word
    loads/<load_id>/<output>.manifest                                      merged manifests of one warehouse load
    certificates/dt=YYYY-MM-DD/hour=HH.json                                what became of every line of an hour
    rebuilds/<load_id>/<output>/<txn_id>.<ext>                             files of a rebuild, until they are loaded
    repairs/<epoch>/<partition, 6 digits>/<offset, 12 digits>.step         steps that replace damaged ones of topic rows
    repairs/files/<txn_id>/<output>.json                                   a data file that was made again with other bytes
    index/dt=YYYY-MM-DD/hour=HH/<digest>-<counts>.v1.ids, settled          where the ids of an hour's raw files are
    registry/<export>/data/<file>.json.gz                                  exports of the registry, made by DynamoDB

dt and hour are UTC: of the batch's id for raw and index, of the commit for the rest.
"""

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

from app.core.formats.decoding import refuse_newer
from app.core.formats.flows import BY_NAME
from app.core.formats.id_index import INDEX_VERSION, Counts

EXPORTS_PREFIX: Final = "registry/"
NUMBER_DIGITS: Final = 12
PARTITION_DIGITS: Final = 6
_TXN_ID: Final = re.compile(r"\d+-\d+-\d+-[0-9a-f]+")
_EXPORT: Final = re.compile(rf"{EXPORTS_PREFIX}(.+)/data/[^/]+")
_REPAIR: Final = re.compile(rf"repairs/(\d+)/(\d{{{PARTITION_DIGITS}}})/(\d{{{NUMBER_DIGITS}}})\.step")

_HOUR: Final = r"dt=\d{4}-\d\d-\d\d/hour=\d\d"
_UUID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_RAW: Final = re.compile(rf"raw/({_HOUR})/({_UUID})\.ndjson\.zst")
_SEGMENT: Final = re.compile(rf"index/({_HOUR})/[0-9a-f]{{16}}-(\d+)-(\d+)-(\d+)\.v(\d+)\.ids")
RAW: Final = "raw/"
INDEX: Final = "index/"
BEHIND_ALL: Final = "~"
"""It sorts behind every name in a folder of ours."""


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


def certificate_key(hour_ms: int) -> str:
    """The certificate of an hour; `hour_ms` is a moment in it."""
    return f"certificates/{hour_path(hour_ms)}.json"


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


def file_repairs_prefix(txn: str) -> str:
    """The prefix of what is said of a transaction's files that were made again with other bytes."""
    return f"repairs/files/{txn}/"


def file_repair_key(txn: str, output: str) -> str:
    """What is said of one data file that was made again with other bytes."""
    return f"{file_repairs_prefix(txn)}{output}.json"


def is_txn_id(text: str) -> bool:
    """Whether `text` has the form of a transaction id."""
    return _TXN_ID.fullmatch(text) is not None


class RawPlace(NamedTuple):
    """The parts of a raw file's key."""

    hour: str
    """`dt=YYYY-MM-DD/hour=HH`."""
    batch_id: str


def raw_place(key: str) -> RawPlace | None:
    """The parts of a raw file's key; None if it is no such key."""
    found = _RAW.fullmatch(key)
    return None if found is None else RawPlace(found[1], found[2])


def hour_of(key: str) -> str:
    """`dt=YYYY-MM-DD/hour=HH` in a key of `raw/` or `index/`; empty if it has none."""
    found = re.match(rf"[a-z]+/({_HOUR})/", key)
    return "" if found is None else found[1]


def raw_prefix(hour: str) -> str:
    """The prefix of an hour's raw files; their keys sort by the time in the batch's id."""
    return f"{RAW}{hour}/"


def index_prefix(hour: str) -> str:
    """The prefix of an hour's index."""
    return f"{INDEX}{hour}/"


def settled_key(hour: str) -> str:
    """The object whose presence says that the segments of an hour have all its raw files."""
    return f"{index_prefix(hour)}settled"


class SegmentPlace(NamedTuple):
    """A segment of the index, as its key names it."""

    key: str
    hour: str
    counts: Counts


def segment_key(hour: str, digest: int, counts: Counts) -> str:
    """The key of a segment; `digest` (64 bits) is that of its content, so that one content has one key."""
    numbers = f"{counts.batches}-{counts.events}-{counts.views}"
    return f"{index_prefix(hour)}{digest:016x}-{numbers}.v{INDEX_VERSION}.ids"


def segment_place(key: str) -> SegmentPlace | None:
    """The parts of a segment's key; None if it is no such key.

    Raises:
        NewerFormat: it is the key of a newer segment.
    """
    found = _SEGMENT.fullmatch(key)
    if found is None:
        return None
    refuse_newer(f"index segment {key}", int(found[5]), INDEX_VERSION)
    return SegmentPlace(key, found[1], Counts(int(found[2]), int(found[3]), int(found[4])))


def export_of(key: str) -> str | None:
    """The export of the registry that a key is a file of; None if it is no such key."""
    found = _EXPORT.fullmatch(key)
    return None if found is None else found[1]
