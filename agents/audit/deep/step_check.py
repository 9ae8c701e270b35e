"""Topic `rows`: the damaged steps that no replacement mends."""

from collections.abc import AsyncIterator

from agents.audit.deep.ports import DeepPorts
from agents.audit.deep.report import DeepReport
from app.core.audit.deep.steps import StepWalk
from app.core.formats.step_message import StepLog
from app.core.repair.replacements import Replacements
from app.errors import NewerFormat, ServiceUnavailable, StepMessageInvalid
from app.settings import Settings
from app.shell.repairs import read_replacements
from app.topics import topics_of


async def find_damaged_steps(ports: DeepPorts, settings: Settings, report: DeepReport) -> AsyncIterator[int]:
    """Read every partition of `rows` from its earliest message. Yields: 1 for each partition that is done."""
    topic = topics_of(settings).rows.name
    for partition in range(settings.partitions):
        try:
            await _follow(ports, StepLog(topic, partition, settings.epoch), report)
        except (ServiceUnavailable, NewerFormat) as exc:
            report.skip(f"topic {topic}: {exc}")
        except StepMessageInvalid as exc:
            report.skip(f"a replacement of a damaged step cannot be read: {exc}")
        yield 1


async def _follow(ports: DeepPorts, log: StepLog, report: DeepReport) -> None:
    if ports.logs is None:
        raise ServiceUnavailable("Kafka does not answer")
    found = await read_replacements(ports.store, log.epoch, {log.partition})
    replaced = found.get(log.partition, Replacements())
    first, end = await ports.logs.bounds(log.topic, log.partition)
    walk = StepWalk(log, is_trimmed=first > 0)
    async for message in ports.logs.scan(log.topic, log.partition, first, end):
        report.steps += 1
        report.note(walk.offer(replaced.at(message.offset, message.value), message.offset))
