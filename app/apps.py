"""The five Faust apps: `from app.apps import etl as app`. Each is built when it is first asked for, and only then.

Importing this module or taking an app from it connects to nothing. `app.worker` is where apps and agents meet.
"""

import os
import sys
from typing import Any, Final

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # before anyone imports polars: workers scale by processes

from app.adapters import kafka_clients
from app.errors import ConfigurationError
from app.settings import Settings, read_settings
from app.shell.faust_app import InstreamApp

ROLES: Final = ("bridge", "etl", "sink", "delivery", "audit")
_built: dict[str, InstreamApp] = {}


def new_app(role: str, settings: Settings) -> InstreamApp:
    """A Faust app of `role`, configured by `settings` alone: consumer group `instream-<role>-e<epoch>`, own datadir.

    What concerns Kafka's clients is in `app.adapters.kafka_clients`.
    """
    return InstreamApp(
        role, settings,
        datadir=settings.data_dir_of(role).absolute(),
        Worker="app.shell.worker_process:InstreamWorker",
        autodiscover=False, topic_allow_declare=False, topic_disable_leader=True,
        topic_partitions=settings.partitions, topic_replication_factor=settings.replication_factor,
        store="rocksdb://", table_standby_replicas=0,
        key_serializer="raw", value_serializer="raw",
        agent_supervisor="mode.CrashingSupervisor",
        stream_wait_empty=False, stream_buffer_maxsize=64,
        **kafka_clients.faust(settings),
        web_enabled=False, web_bind=settings.web_host, web_port=settings.web_port or 6066,
        canonical_url=f"http://{settings.web_host}/{role}/{os.getpid()}",
    )  # fmt: skip


def __getattr__(name: str) -> Any:
    """The app of a role, built from the environment at the first access."""
    if name not in ROLES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _built:
        try:
            _built[name] = new_app(name, read_settings())
        except ConfigurationError as exc:
            sys.exit(f"cannot start: {exc}")  # one line, without a traceback
    return _built[name]
