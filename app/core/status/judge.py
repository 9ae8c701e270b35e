"""The verdict on a pipeline: the state of each role, the stage that is slowest, what to do, and the exit code.

Three verdicts are not "healthy". `broken`: something does not work, and time alone mends nothing. `late`: the warehouse is
not complete up to the promised age. `waiting`: a role waits for something, or a stage has old things before it.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from app.core.delivery.completeness import WAITS_FOR_JOIN
from app.core.formats.flows import FLOWS
from app.core.status.seen import ROLES, STAGES, ProcessSeen, RoleSeen, Seen, ServiceSeen

LOOP_DEATHS: Final = 3
"""So many deaths within `LOOP_WITHIN_S` are a crash loop ..."""
LOOP_WITHIN_S: Final = 300
HEALTHY_S: Final = 60.0
"""... until the process has run so long without another death."""
START_S: Final = 30
"""A process younger than this may have no page yet."""
STAGE_OF_SERVICE: Final = {
    "aws": "collector", "s3": "collector", "registry": "collector", "kinesis": "bridge", "kafka": "bridge",
    "postgres": "delivery", "warehouse": "delivery",
}  # fmt: skip
"""Service -> the first stage that stands still without it."""


class RoleState(StrEnum):
    """The state of a worker."""

    READY = "ready"
    WAITING = "waiting"
    SILENT = "silent"
    RESTARTING = "restarting"
    DOWN = "down"


class Health(StrEnum):
    """The verdict on the whole pipeline, the worst last."""

    HEALTHY = "healthy"
    WAITING = "waiting"
    LATE = "late"
    BROKEN = "broken"


class StatusLimits(NamedTuple):
    """What is normal, in seconds."""

    freshness_s: float
    """The promise: the age at which a line is in the warehouse."""
    usual_s: Mapping[str, float]
    """Stage -> the age that things before it have when all is well."""
    healthy_s: float = HEALTHY_S
    """A process that ran so long has recovered."""


class RoleJudged(msgspec.Struct, frozen=True, kw_only=True):
    """A worker, for people."""

    role: str
    state: RoleState
    pid: int | None = None
    reason: str = ""
    """Why it is not ready."""
    restarts: int = 0
    last_error: str = ""
    lag_s: float | None = None
    """The age of the oldest thing that its stage has not passed; None for a role without a lag, or if it is not known."""
    log: str = ""
    is_broken: bool = False
    """Time alone does not mend it."""


class ServiceJudged(msgspec.Struct, frozen=True, kw_only=True):
    """A service, for people."""

    name: str
    answers: bool
    reason: str = ""
    pid: int | None = None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict."""

    verdict: Health
    roles: list[RoleJudged]
    services: list[ServiceJudged]
    problems: list[str]
    """Every fault, the first one to look at first."""
    slowest_stage: str | None = None
    """The stage at which things stand, or are the oldest; None if nothing waits longer than is normal."""
    slowest_reason: str = ""
    lag_s: float | None = None
    """The age of the moment up to which the warehouse is complete."""
    flow_up_to_ms: Mapping[str, int] = {}
    """Flow -> every row of it received before this moment is in the warehouse."""
    next_command: str = ""

    @property
    def exit_code(self) -> int:
        """0 healthy, 3 late or waiting, 1 broken."""
        return {Health.HEALTHY: 0, Health.WAITING: 3, Health.LATE: 3, Health.BROKEN: 1}[self.verdict]


class _Fault(NamedTuple):
    """Something that is not as it must be."""

    verdict: Health
    text: str
    stage: str | None = None
    """The stage that stands because of it."""
    command: str = ""


def judge(seen: Seen, limits: StatusLimits) -> Judgement:
    """Judge a pipeline by what was seen of it.

    Args:
        seen: at one moment.
        limits: what is normal.
    """
    roles = [_judge_role(role, seen, limits.healthy_s) for role in seen.roles]
    services = [_judge_service(service) for service in seen.services]
    fresh = seen.freshness
    lag_s = None if fresh.complete_up_to_ms is None else max(0.0, (seen.now_ms - fresh.complete_up_to_ms) / 1000)
    faults = [
        *_of_stack(seen),
        *_of_services(seen.services, is_local=seen.is_local),
        *_of_roles(roles, seen),
        *_of_data(seen, limits, lag_s),
    ]
    faults.sort(key=lambda fault: -list(Health).index(fault.verdict))  # stable: the order above stays within a verdict
    slowest = _slowest(faults, seen, limits)
    return Judgement(
        verdict=faults[0].verdict if faults else Health.HEALTHY,
        roles=roles, services=services, problems=[fault.text for fault in faults],
        slowest_stage=None if slowest is None else slowest.stage, slowest_reason="" if slowest is None else slowest.text,
        lag_s=lag_s, flow_up_to_ms=_flows(seen),
        next_command=next((fault.command for fault in faults if fault.command), "instream audit"),
    )  # fmt: skip


# --- roles and services


def _judge_role(role: RoleSeen, seen: Seen, healthy_s: float) -> RoleJudged:
    process = role.process
    state, reason, is_broken = _state(role, seen)
    if process is not None and state is not RoleState.DOWN and (loop := _crash_loop(process, seen.now_ms, healthy_s)):
        why = process.last_error or reason
        state, is_broken, reason = RoleState.RESTARTING, True, f"{loop}: {why}" if why else loop
    return RoleJudged(
        role=role.role, state=state, reason=reason, is_broken=is_broken, lag_s=seen.lags_s.get(role.role),
        pid=process.pid if process else None, restarts=process.restarts if process else 0,
        last_error=process.last_error if process else "", log=process.log if process else "",
    )  # fmt: skip


def _state(role: RoleSeen, seen: Seen) -> tuple[RoleState, str, bool]:
    """State, reason, and whether it is broken, of a worker that is in no crash loop."""
    process = role.process
    if process is not None and process.pid is None:
        last = f"it ended with {process.deaths[-1].why}" if process.deaths else "it does not run"
        is_kept = seen.stack_state in {"ready", "starting"}
        return (RoleState.RESTARTING, last, False) if is_kept else (RoleState.DOWN, last, True)
    if process is not None and process.is_frozen:
        return RoleState.SILENT, f"process {process.pid} is stopped (SIGSTOP)", True
    if role.answers:
        return (RoleState.READY, "", False) if role.waits_for is None else (RoleState.WAITING, role.waits_for, False)
    if process is not None and process.age_s < START_S:
        return RoleState.WAITING, "it starts", False
    is_down = process is None and role.is_refused
    reason = f"nobody listens at {role.url}" if is_down else f"{role.url}/ready does not answer"
    return RoleState.DOWN if is_down else RoleState.SILENT, reason, True


def _crash_loop(process: ProcessSeen, now_ms: int, healthy_s: float) -> str:
    """The crash loop in words; empty if the process is in none."""
    recent = [death for death in process.deaths if now_ms - death.at_ms <= LOOP_WITHIN_S * 1000]
    if len(recent) < LOOP_DEATHS or (process.pid is not None and process.age_s >= healthy_s):
        return ""
    return f"crash loop, {len(recent)} deaths in {LOOP_WITHIN_S} s, the last with {recent[-1].why}"


def _judge_service(service: ServiceSeen) -> ServiceJudged:
    process, fault = service.process, service.fault
    if process is not None and process.pid is None:
        fault = f"it does not run{f': {process.last_error}' if process.last_error else ''}"
    elif process is not None and process.is_frozen:
        fault = f"process {process.pid} is stopped (SIGSTOP)"
    return ServiceJudged(
        name=service.name, answers=fault is None, reason=fault or "", pid=None if process is None else process.pid
    )


# --- faults


_STACK_STATES: Final = {
    "absent": "no stack is up",
    "ended": "the stack has ended",
    "stopping": "the stack stops",
    "abandoned": "the stack's supervisor was killed, so nothing is started again",
}


def _of_stack(seen: Seen) -> Iterable[_Fault]:
    if not seen.is_local or seen.stack_state == "ready":
        return
    if seen.stack_state == "starting":
        yield _Fault(Health.WAITING, "the stack starts")
        return
    why = f": {seen.stack_failure}" if seen.stack_failure else ""
    yield _Fault(Health.BROKEN, _STACK_STATES.get(seen.stack_state, seen.stack_state) + why, None, "instream up")


def _of_services(services: Iterable[ServiceSeen], *, is_local: bool) -> Iterable[_Fault]:
    """One fault a broken service; a process that is broken explains the services that it serves."""
    behind = {"aws": ("s3", "registry", "kinesis"), "postgres": ("warehouse",)}
    judged = {service.name: _judge_service(service) for service in services}
    explained = {
        name for cause, names in behind.items() if cause in judged and not judged[cause].answers for name in names
    }  # fmt: skip
    for service in services:
        found = judged[service.name]
        if found.answers or found.name in explained:
            continue
        is_frozen = service.process is not None and service.process.is_frozen
        command = "instream init" if "instream init" in found.reason else "instream down && instream up" if is_local else ""
        if is_frozen:
            command = f"kill -CONT {found.pid}"
        waits = "instream init" in found.reason
        verdict = Health.WAITING if waits else Health.BROKEN
        yield _Fault(verdict, f"{found.name}: {found.reason}", STAGE_OF_SERVICE.get(found.name), command)


def _of_roles(roles: Iterable[RoleJudged], seen: Seen) -> Iterable[_Fault]:
    frozen = {role.role for role in seen.roles if role.process is not None and role.process.is_frozen}
    for role in sorted(roles, key=lambda role: (-(role.lag_s or 0), _place(role.role))):
        if role.state is RoleState.READY:
            continue
        verdict = Health.BROKEN if role.is_broken else Health.WAITING
        yield _Fault(verdict, f"{role.role} is {role.state}: {role.reason}", role.role, _remedy(role, frozen))


def _remedy(role: RoleJudged, frozen: Iterable[str]) -> str:
    if role.role in frozen:
        return f"kill -CONT {role.pid}"
    if "instream " in role.reason:  # the role itself says what to run
        return "instream " + role.reason.partition("instream ")[2].partition("`")[0]
    if role.state is RoleState.SILENT and role.pid is not None:
        return f"kill -KILL {role.pid}"  # it is started again, and nothing is lost
    return f"tail -n 50 {role.log}" if role.log and role.state is not RoleState.WAITING else ""


def _of_data(seen: Seen, limits: StatusLimits, lag_s: float | None) -> Iterable[_Fault]:
    fresh = seen.freshness
    if fresh.quarantined:
        text = f"quarantined: {', '.join(fresh.quarantined[:3])}{', ...' if len(fresh.quarantined) > 3 else ''}"
        yield _Fault(Health.BROKEN, text, "delivery", "instream delivery quarantined")
    if fresh.lost:
        batches = "1 batch" if fresh.lost == 1 else f"{fresh.lost} batches"
        text = f"lines of {batches} are lost, doubled or damaged"
        yield _Fault(Health.BROKEN, text, None, "instream audit")
    for stage in STAGES:
        excess_s = _excess_s(stage, seen, limits)
        if excess_s > limits.usual_s.get(stage, 0) + 20:
            text = f"{stage} is behind: the oldest thing before it is {seen.lags_s[stage]:.0f} s old"
            yield _Fault(Health.WAITING, text, stage)
    if lag_s is not None and lag_s > limits.freshness_s and not fresh.is_bound:
        held = fresh.held or fresh.oldest
        at = f", held by stage {held.stage}" if held is not None and held.stage else ""
        text = f"the warehouse is complete only up to {lag_s:.0f} s ago, {limits.freshness_s:.0f} s are promised{at}"
        yield _Fault(Health.LATE, text, None, "instream audit")
    for text in seen.unread:
        yield _Fault(Health.WAITING, text)


def _excess_s(stage: str, seen: Seen, limits: StatusLimits) -> float:
    return seen.lags_s.get(stage, 0.0) - limits.usual_s.get(stage, 0.0)


_STAGE_OF_HOLDER: Final = {
    "kinesis": "bridge", "etl": "etl", "join": "etl", "sink": "sink", "delivery": "delivery", "quarantined": "delivery",
    "dead_letter": "etl",
}  # fmt: skip


def _slowest(faults: Iterable[_Fault], seen: Seen, limits: StatusLimits) -> _Fault | None:
    """The stage at which things stand.

    A broken service or role names its stage. Without one the stage with the oldest things counts, then a role that waits,
    then the holder of the oldest batch if the warehouse is late.
    """
    faults = list(faults)
    for fault in faults:
        if fault.verdict is Health.BROKEN and fault.stage is not None and fault.stage != "audit":
            return fault
    waiting = [fault for fault in faults if fault.stage is not None and fault.verdict is not Health.BROKEN]
    if waiting:
        return max(waiting, key=lambda fault: (_excess_s(fault.stage or "", seen, limits), -_place(fault.stage or "")))
    held = seen.freshness.held or seen.freshness.oldest
    if any(fault.verdict is Health.LATE for fault in faults) and held is not None and held.stage in _STAGE_OF_HOLDER:
        return _Fault(Health.LATE, f"batch {held.batch_id}: {held.detail}", _STAGE_OF_HOLDER[held.stage])
    behind = {stage: excess for stage in STAGES if (excess := _excess_s(stage, seen, limits)) > 0}
    if behind:
        stage = max(behind, key=behind.__getitem__)
        return _Fault(Health.HEALTHY, f"the oldest thing before it is {seen.lags_s[stage]:.0f} s old", stage)
    return next((fault for fault in faults if fault.stage is not None), None)


def _place(role: str) -> int:
    return ROLES.index(role) if role in ROLES else len(ROLES)


def _flows(seen: Seen) -> dict[str, int]:
    fresh = seen.freshness
    found: dict[str, int] = {}
    for flow in FLOWS:
        up_to_ms = fresh.complete_up_to_ms if flow.name in WAITS_FOR_JOIN else fresh.at_once_up_to_ms
        if up_to_ms is not None:
            found[flow.name] = up_to_ms
    return found
