"""Delivery: ready transactions in S3 become rows of the warehouse (rules D1 to D4).

One loop a worker, over the partitions of `manifests` that it owns: every DELIVERY_INTERVAL_S, and sooner when a message
comes. A message says only "look"; the chains in S3 and delivery_log decide what is loaded.
"""

from typing import Any, Final

from agents.delivery.deliverer import Deliverer
from agents.delivery.load import WarehouseLoad
from agents.delivery.owner import DeliveryOwner
from app.adapters.warehouse import to_warehouse
from app.apps import delivery as app
from app.crash.proxies import connecting
from app.shell.outside_calls import noted_sessions
from app.topics import topics_of

LIMITS_S: Final = {"copy": 120.0, "lock": 10.0}
"""A COPY takes as long as its rows do; a lock waits for another worker's load, and for ever if a stranger holds it."""
topics: Final = topics_of(app.settings)
manifests = app.source_topic(topics.manifests.name, topics.manifests.partitions)


def new_deliverer() -> Deliverer:
    """The deliverer of a loop."""
    settings, store, clock = app.settings, app.ports.objects, app.ports.clock
    connecting_at = connecting(app.ports.points, "warehouse", to_warehouse(settings))
    connect = noted_sessions(app.ports.calls, "warehouse", connecting_at, LIMITS_S)
    return Deliverer(store, WarehouseLoad(store, connect, settings, clock), settings, clock)


owner: Final = DeliveryOwner(app, new_deliverer)
app.when_assigned(owner.begin)
app.when_leaving(owner.end)
app.watchdog.watch_commits(owner.owned)
app.ready_when(owner.waits_for)


@app.agent(manifests)  # type: ignore[untyped-decorator]
async def look_sooner(stream: Any) -> None:
    """Wake the loop. The message is acknowledged at once, because the walk does not depend on it."""
    async for _ in stream:
        owner.look_sooner()
