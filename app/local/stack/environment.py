"""The environment of the local stack's processes: the settings' local values, the caller's own, and the addresses.

The caller's `INSTREAM_*` variables win over the local values (`INSTREAM_JOIN_WINDOW_S=4 instream up`); addresses, folders
and all AWS variables are the stack's own, so a shell with real credentials cannot lead the local stack to the real AWS.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from app.local.stack.ports import HOST, Service
from app.local.stack.settings import PORT_VARIABLES
from app.variables import PREFIX, in_capitals

ROLES: Final = ("collector", "bridge", "etl", "sink", "delivery", "audit")
"""In the order in which events pass them; they are stopped in the same order."""
WORKERS: Final = ROLES[1:]
SERVICES: Final = (
    Service("collector", PORT_VARIABLES["collector"], 8000),
    Service("kafka", PORT_VARIABLES["kafka"], 9092),
    Service("aws", PORT_VARIABLES["aws"], 4566),
    Service("warehouse", PORT_VARIABLES["warehouse"], 5439),
    Service("kafka-controller"),
    Service("postgres"),
    Service("warehouse-control"),
    *(Service(f"{role}-web") for role in ROLES),
)
LOCAL_VALUES: Final = {
    "INSTREAM_PARTITIONS": "4",
    "INSTREAM_CHECKPOINT_PARTITIONS": "2",
    "INSTREAM_REPLICATION_FACTOR": "1",
    "INSTREAM_MIN_INSYNC_REPLICAS": "1",
    "INSTREAM_BUCKET_VERSIONING": "false",  # the stand-in keeps every version in memory
    "INSTREAM_STREAM_SHARDS": "2",
    "INSTREAM_LINGER_MS": "250",
    "INSTREAM_SLACK_S": "2",
    "INSTREAM_EXAMPLE_PAGE": "true",
    "INSTREAM_WRITE_KEYS": "demo:browser,demo-server:server",
}
"""The local stack's values for variables that the caller does not set."""
_AWS: Final = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
_ONE_THREAD: Final = {
    "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
}  # fmt: skip
_OURS: Final = frozenset({"INSTREAM_DATA_DIR", "INSTREAM_WEB_PORT", "INSTREAM_WEB_HOST"})


def stack_variables(home: Path, ports: Mapping[str, int], caller: Mapping[str, str]) -> dict[str, str]:
    """The `INSTREAM_*`, `AWS_*` and proxy variables that every process of the stack has, and every command that talks to it.

    Args:
        home: absolute path of the run state.
        ports: port of each of `SERVICES`.
        caller: the environment of the command `up`.
    """
    given = in_capitals(caller)
    own = {name: value for name, value in given.items() if name.startswith(PREFIX) and name not in _OURS}
    quiet_hosts = [part for part in (caller.get("NO_PROXY") or caller.get("no_proxy") or "").split(",") if part]
    no_proxy = ",".join(dict.fromkeys([*quiet_hosts, HOST, "localhost"]))
    return LOCAL_VALUES | own | _AWS | {
        "AWS_ENDPOINT_URL": f"http://{HOST}:{ports['aws']}",
        "INSTREAM_HOME": str(home),
        "INSTREAM_COLLECTOR_PORT": str(ports["collector"]),
        "INSTREAM_KAFKA": f"{HOST}:{ports['kafka']}",
        "INSTREAM_WAREHOUSE_URL": f"postgresql://instream@{HOST}:{ports['warehouse']}/instream",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }  # fmt: skip


def process_environment(caller: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a process.

    The caller's, without variables that lead elsewhere, with the stack's `variables`.
    """
    kept = {name: value for name, value in in_capitals(caller).items() if not name.startswith((PREFIX, "AWS_", "PG"))}
    return kept | dict(variables)


def role_variables(role: str, home: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """More variables of one role's process: its folder, its operations port, one thread for polars."""
    return _ONE_THREAD | {
        "INSTREAM_DATA_DIR": str(home / "data" / role),
        "INSTREAM_WEB_PORT": str(ports[f"{role}-web"]),
    }
