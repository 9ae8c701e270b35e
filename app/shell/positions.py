"""Where a consumer group stands in a topic."""

from app.adapters.ports import Logs


async def reads_next(logs: Logs, group: str, topic: str, partition: int) -> int:
    """The offset of a partition that a group reads next, or the earliest there is behind it.

    Raises:
        ServiceUnavailable: the broker does not answer.
    """
    committed = await logs.committed(group)
    first, _ = await logs.bounds(topic, partition)
    return max(first, committed.get((topic, partition), 0))
