"""The answer of `instream status --json`. Fields are added, never renamed."""

from datetime import UTC, datetime

import msgspec

from app.core.status.judge import Health, Judgement, RoleJudged, ServiceJudged
from app.core.status.seen import Seen, UncoveredBatch


class FlowAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How far one flow is complete."""

    fresh_as_of: str
    lag_s: float


class StageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A stage's lag."""

    stage: str
    lag_s: float


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that is not covered."""

    batch_id: str
    received_at: str
    age_s: float
    stage: str | None
    until: str | None
    detail: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a pipeline, for programs."""

    healthy: bool
    verdict: Health
    fresh_as_of: str | None
    """The warehouse is complete up to this moment (ISO 8601, UTC); null if that is not known."""
    fresh_as_of_is_bound: bool
    """The warehouse does not answer: it is complete at least up to then."""
    lag_s: float | None
    promised_s: float
    flows: dict[str, FlowAnswer]
    roles: list[RoleJudged]
    services: list[ServiceJudged]
    stages: list[StageAnswer]
    slowest_stage: str | None
    slowest_reason: str
    oldest_uncovered: BatchAnswer | None
    held: BatchAnswer | None
    """The oldest batch that waits for more than the join."""
    quarantined: list[str]
    lost: int
    problems: list[str]
    next_command: str
    urls: dict[str, str]


def answer(seen: Seen, judged: Judgement, promised_s: float, urls: dict[str, str]) -> Answer:
    """The answer that follows from what was seen and the judgement on it."""
    fresh = seen.freshness
    return Answer(
        healthy=judged.verdict is Health.HEALTHY, verdict=judged.verdict,
        fresh_as_of=None if fresh.complete_up_to_ms is None else iso(fresh.complete_up_to_ms),
        fresh_as_of_is_bound=fresh.is_bound, lag_s=_rounded(judged.lag_s), promised_s=promised_s,
        flows={
            flow: FlowAnswer(fresh_as_of=iso(up_to_ms), lag_s=max(0.0, round((seen.now_ms - up_to_ms) / 1000, 1)))
            for flow, up_to_ms in judged.flow_up_to_ms.items()
        },
        roles=judged.roles, services=judged.services,
        stages=[StageAnswer(stage=stage, lag_s=round(lag_s, 1)) for stage, lag_s in seen.lags_s.items()],
        slowest_stage=judged.slowest_stage, slowest_reason=judged.slowest_reason,
        oldest_uncovered=_batch(fresh.oldest, seen.now_ms), held=_batch(fresh.held, seen.now_ms),
        quarantined=list(fresh.quarantined), lost=fresh.lost, problems=judged.problems, next_command=judged.next_command,
        urls=urls,
    )  # fmt: skip


def iso(moment_ms: int) -> str:
    """A moment as ISO 8601 in UTC, with milliseconds."""
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _batch(batch: UncoveredBatch | None, now_ms: int) -> BatchAnswer | None:
    if batch is None:
        return None
    return BatchAnswer(
        batch_id=batch.batch_id, received_at=iso(batch.received_at_ms),
        age_s=max(0.0, round((now_ms - batch.received_at_ms) / 1000, 1)), stage=batch.stage,
        until=None if batch.until_ms is None else iso(batch.until_ms), detail=batch.detail,
    )  # fmt: skip


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
