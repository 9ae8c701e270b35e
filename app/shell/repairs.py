"""Reads the steps that replace damaged messages of topic `rows` from S3 (rule E2).

`instream repair-log` writes them. A list of all partitions is one short listing, because repairs are rare.
"""

from collections.abc import Collection, Mapping

import structlog

from app.adapters.ports import ObjectStore
from app.core.formats.object_keys import repair_place, repairs_prefix
from app.core.formats.step_message import StepLog
from app.core.repair.replacements import Replacements
from app.errors import OutcomeUnknown, ServiceUnavailable

log = structlog.get_logger(__name__)


async def read_replacements(objects: ObjectStore, epoch: int, partitions: Collection[int]) -> dict[int, Replacements]:
    """Partition -> the replacements of its damaged steps; partitions without any are absent.

    Raises:
        StepMessageInvalid: a replacement is no step of its partition.
        NewerFormat: a replacement is a step of a newer version.
        ServiceUnavailable: S3 does not answer.
    """
    prefix = repairs_prefix(epoch, *partitions) if len(partitions) == 1 else repairs_prefix(epoch)
    keys = [each.key async for each in objects.list(prefix)]
    found: dict[int, dict[int, bytes]] = {}
    for key in keys:
        place = repair_place(key)
        if place is not None and place[1] in partitions:
            found.setdefault(place[1], {})[place[2]] = await objects.get(key)
    return {partition: Replacements(messages, StepLog("rows", partition, epoch)) for partition, messages in found.items()}


async def replacements_or_none(objects: ObjectStore, epoch: int, partitions: Collection[int]) -> Mapping[int, Replacements]:
    """Like `read_replacements`, but none while S3 does not answer: the stores then go on without S3.

    That is safe. A store that does not know the replacement finds the gap behind the damaged step, and its worker starts
    again and asks again.
    """
    try:
        return await read_replacements(objects, epoch, partitions)
    except (ServiceUnavailable, OutcomeUnknown) as exc:
        log.warning("S3 does not answer, stores are restored without repairs of the log", error=str(exc))
        return {}
