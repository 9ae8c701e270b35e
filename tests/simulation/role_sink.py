"""The sink as a process: transaction chains over `rows`, wired as `agents.sink.agent` wires them."""

from agents.sink.chain_store import sweep
from agents.sink.encoder import encoder
from agents.sink.partition import SinkPartition, SinkPorts, commit_rules, serve
from app.core.sink.chain import ChainId, LogBounds
from app.shell.inbox import Inbox
from app.shell.runners import PartitionRunners
from tests.simulation.kafka_client import Member, MemberRole, Producer
from tests.simulation.process import Process
from tests.simulation.services import ports_of


class Sink(MemberRole):
    """Transaction chains over `rows`."""

    def __init__(self, process: Process) -> None:
        world = process.world
        self._world, self._process = world, process
        self._ports = ports_of(process)
        self._producer = Producer(process)
        rows = world.topics.rows.name
        self.member = Member(process, world.groups["sink"], (rows,), self._ports, world.settings)
        runners = PartitionRunners(self.member, rows, self._work)
        self.member.serve(runners.give)
        process.spawn(self._sweep(), "sweep")

    async def _work(self, inbox: Inbox) -> None:
        topics = self._world.topics

        async def announce(ready: bytes) -> None:
            await (await self._producer.send(topics.manifests.name, inbox.partition, ready))

        async def bounds() -> LogBounds:
            return LogBounds(*await self._ports.logs.bounds(topics.rows.name, inbox.partition))

        ports = SinkPorts(
            self._ports.objects, announce, bounds, self._process.clock, lambda: self._process.random.randbytes(4).hex(),
            self._process.sleep, encoder(self._world.settings),
        )  # fmt: skip
        await serve(inbox, SinkPartition(ChainId(1, inbox.partition), commit_rules(self._world.settings), ports))

    async def _sweep(self) -> None:
        while True:
            await self._process.sleep(40)
            await sweep(self._ports.objects, self._process.clock.now_ms() + 86_400_000, self._process.sleep)
