"""The six roles as processes: production code, wired to the simulated world as the composition roots wire it to ours."""

from collections.abc import Callable
from typing import Any

from process import Process
from role_audit import Audit
from role_bridge import Bridge
from role_collector import Collector
from role_delivery import Delivery
from role_etl import Etl
from role_sink import Sink

MAKERS: dict[str, Callable[[Process], Any]] = {
    "collector": Collector, "bridge": Bridge, "etl": Etl, "sink": Sink, "delivery": Delivery, "audit": Audit,
}  # fmt: skip
