"""The six roles as processes: production code, wired to the simulated world as the composition roots wire it to ours."""

from collections.abc import Callable
from typing import Any

from tests.simulation.process import Process
from tests.simulation.role_audit import Audit
from tests.simulation.role_bridge import Bridge
from tests.simulation.role_collector import Collector
from tests.simulation.role_delivery import Delivery
from tests.simulation.role_etl import Etl
from tests.simulation.role_sink import Sink

MAKERS: dict[str, Callable[[Process], Any]] = {
    "collector": Collector, "bridge": Bridge, "etl": Etl, "sink": Sink, "delivery": Delivery, "audit": Audit,
}  # fmt: skip
