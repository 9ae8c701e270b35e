"""The verdict on a pipeline: every fault is named, with its stage, its exit code and what to do."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest

from app.core.status.answer import answer
from app.core.status.judge import Judgement, RoleState, StatusLimits, judge
from app.core.status.seen import ROLES, Freshness, ProcessDeath, ProcessSeen, RoleSeen, Seen, ServiceSeen, UncoveredBatch

NOW_MS = 1_800_000_000_000
LIMITS = StatusLimits(300, {"bridge": 3, "etl": 5, "sink": 13, "delivery": 8})
SERVICES = ("aws", "postgres", "kafka", "s3", "registry", "kinesis", "warehouse")


def process(pid: int | None = 7, **changes: object) -> ProcessSeen:
    return msgspec.structs.replace(ProcessSeen(pid=pid, age_s=1000, log="/logs/x.log"), **changes)


def deaths(*ages_s: float, why: str = "signal SIGKILL") -> tuple[ProcessDeath, ...]:
    return tuple(ProcessDeath(NOW_MS - round(age * 1000), why, 1.0) for age in ages_s)


def batch(age_s: float, stage: str | None, detail: str = "") -> UncoveredBatch:
    return UncoveredBatch(batch_id="b", received_at_ms=NOW_MS - round(age_s * 1000), stage=stage, detail=detail)


def fresh(age_s: float, stage: str | None = "join", **changes: object) -> Freshness:
    """The oldest uncovered batch is so old."""
    return msgspec.structs.replace(
        Freshness(
            complete_up_to_ms=NOW_MS - round(age_s * 1000), at_once_up_to_ms=NOW_MS - 2000, oldest=batch(age_s, stage)
        ),
        **changes,
    )


WELL = Seen(
    now_ms=NOW_MS,
    roles=tuple(RoleSeen(role=role, url=f"http://{role}", process=process()) for role in ROLES),
    services=tuple(ServiceSeen(name=name) for name in SERVICES),
    lags_s={"bridge": 0, "etl": 0.3, "sink": 9, "delivery": 4},
    freshness=fresh(140),
)

Plant = Callable[[Seen], Seen]


def role(name: str, **changes: object) -> Plant:
    def plant(seen: Seen) -> Seen:
        roles = tuple(msgspec.structs.replace(one, **changes) if one.role == name else one for one in seen.roles)
        return msgspec.structs.replace(seen, roles=roles)

    return plant


def service(name: str, fault: str | None = "no answer in 2 s", **changes: object) -> Plant:
    def plant(seen: Seen) -> Seen:
        services = tuple(
            msgspec.structs.replace(one, fault=fault, **changes) if one.name == name else one for one in seen.services
        )
        return msgspec.structs.replace(seen, services=services)

    return plant


def lag(stage: str, lag_s: float) -> Plant:
    return lambda seen: msgspec.structs.replace(seen, lags_s={**seen.lags_s, stage: lag_s})


def freshness(found: Freshness) -> Plant:
    return lambda seen: msgspec.structs.replace(seen, freshness=found)


def stack(state: str, **changes: object) -> Plant:
    return lambda seen: msgspec.structs.replace(seen, stack_state=state, **changes)


def all_of(*plants: Plant) -> Plant:
    def plant(seen: Seen) -> Seen:
        for each in plants:
            seen = each(seen)
        return seen

    return plant


class Fault(NamedTuple):
    name: str
    plant: Plant
    code: int
    stage: str | None
    says: str
    command: str = ""


LOOP = {"process": process(age_s=4, restarts=3, deaths=deaths(40, 20, 4), last_error="boom")}
DISK_FULL = "warehouse, disk_full: 53100 Disk Full"
LACKS = "the warehouse lacks column analytics.page_views.title: run `instream init`"

FAULTS = [
    Fault(
        "a frozen collector",
        role("collector", answers=False, process=process(is_frozen=True)),
        1,
        "collector",
        "SIGSTOP",
        "kill -CONT 7",
    ),
    Fault(
        "a frozen bridge",
        role("bridge", answers=False, process=process(is_frozen=True)),
        1,
        "bridge",
        "SIGSTOP",
        "kill -CONT 7",
    ),
    Fault("a frozen etl", role("etl", answers=False, process=process(is_frozen=True)), 1, "etl", "SIGSTOP", "kill -CONT 7"),
    Fault(
        "a frozen sink, with old rows before it",
        all_of(role("sink", answers=False, process=process(is_frozen=True)), lag("sink", 180)),
        1,
        "sink",
        "SIGSTOP",
        "kill -CONT 7",
    ),
    Fault(
        "a frozen audit",
        role("audit", answers=False, process=process(is_frozen=True)),
        1,
        "audit",
        "SIGSTOP",
        "kill -CONT 7",
    ),
    Fault(
        "a delivery that hangs",
        role("delivery", answers=False),
        1,
        "delivery",
        "http://delivery/ready does not answer",
        "kill -KILL 7",
    ),
    Fault(
        "an etl in a crash loop",
        role("etl", **LOOP),
        1,
        "etl",
        "crash loop, 3 deaths in 300 s, the last with signal SIGKILL: boom",
        "tail -n 50 /logs/x.log",
    ),
    Fault(
        "a sink in a crash loop that runs at this moment",
        role("sink", waits_for="rebalance", **LOOP),
        1,
        "sink",
        "crash loop",
    ),
    Fault(
        "a bridge between two lives",
        role("bridge", answers=False, process=process(None, deaths=deaths(1))),
        3,
        "bridge",
        "bridge is restarting: it ended with signal SIGKILL",
    ),
    Fault("an etl that recovers", role("etl", waits_for="rebalance"), 3, "etl", "etl is waiting: rebalance"),
    Fault("a worker that has just started", role("etl", answers=False, process=process(age_s=2)), 3, "etl", "it starts"),
    Fault("a full warehouse", role("delivery", waits_for=DISK_FULL), 3, "delivery", "disk_full"),
    Fault(
        "a dropped column, known to delivery",
        role("delivery", waits_for=f"warehouse, schema: {LACKS}"),
        3,
        "delivery",
        "lacks column",
        "instream init",
    ),
    Fault("a dropped column before any load", service("warehouse", LACKS), 3, "delivery", "lacks column", "instream init"),
    Fault("a frozen warehouse", service("warehouse"), 1, "delivery", "warehouse: no answer in 2 s"),
    Fault(
        "a frozen database behind the warehouse",
        all_of(service("postgres", process=process(9, is_frozen=True)), service("warehouse", "postgres does not answer")),
        1,
        "delivery",
        "postgres: process 9 is stopped",
        "kill -CONT 9",
    ),
    Fault(
        "frozen AWS",
        all_of(service("aws"), service("s3"), service("registry"), service("kinesis"), freshness(Freshness())),
        1,
        "collector",
        "aws: no answer",
    ),
    Fault(
        "S3 that fails, with a sink that says so",
        all_of(service("s3", "InternalError (500)"), role("sink", waits_for="s3 fails: put: 500")),
        1,
        "collector",
        "s3: InternalError (500)",
    ),
    Fault("Kinesis that fails", service("kinesis", "throttled"), 1, "bridge", "kinesis: throttled"),
    Fault(
        "frozen Kafka, with an etl that says so",
        all_of(service("kafka"), role("etl", waits_for="kafka does not answer append for 9 s")),
        1,
        "bridge",
        "kafka: no answer",
    ),
    Fault("S3 that only the sink cannot use", role("sink", waits_for="s3 fails: put: 403"), 3, "sink", "s3 fails"),
    Fault("a sink that is ready and passes nothing", lag("sink", 90), 3, "sink", "the oldest thing before it is 90 s old"),
    Fault("a bridge that passes nothing", lag("bridge", 60), 3, "bridge", "bridge is behind"),
    Fault(
        "a warehouse that is late, held by the etl",
        freshness(fresh(400, held=batch(400, "etl", "topic blocks, offset 7"))),
        3,
        "etl",
        "complete only up to 400 s ago, 300 s are promised, held by stage etl",
    ),
    Fault(
        "a quarantined transaction",
        freshness(fresh(140, quarantined=("1-0-7-ab",))),
        1,
        "delivery",
        "quarantined: 1-0-7-ab",
        "instream delivery quarantined",
    ),
    Fault("lost lines", freshness(fresh(140, lost=1)), 1, None, "lines of 1 batch are lost", "instream audit"),
    Fault(
        "a pipeline that cannot be measured",
        lambda seen: msgspec.structs.replace(seen, unread=("the lags could not be read",)),
        3,
        None,
        "could not be read",
    ),
    Fault(
        "no stack",
        stack("absent", roles=(), services=(), lags_s={}, freshness=Freshness()),
        1,
        None,
        "no stack is up",
        "instream up",
    ),
    Fault(
        "a stack that ended",
        stack("ended", stack_failure="aws died", roles=()),
        1,
        None,
        "the stack has ended: aws died",
        "instream up",
    ),
    Fault("a stack whose supervisor was killed", stack("abandoned"), 1, None, "supervisor was killed", "instream up"),
    Fault("a stack that starts", stack("starting", roles=()), 3, None, "the stack starts"),
]


def test_a_pipeline_that_is_well_is_healthy() -> None:
    found = judge(WELL, LIMITS)
    assert (found.exit_code, found.problems, found.slowest_stage, found.next_command) == (0, [], None, "instream audit")
    assert found.lag_s == 140
    assert {state.state for state in found.roles} == {RoleState.READY}


def test_a_pipeline_that_waits_only_for_the_join_is_complete_for_the_flows_that_do_not_wait() -> None:
    up_to_ms = judge(WELL, LIMITS).flow_up_to_ms
    assert {flow for flow, at_ms in up_to_ms.items() if at_ms == NOW_MS - 140_000} == {"page_views", "engagements"}
    assert {flow for flow, at_ms in up_to_ms.items() if at_ms == NOW_MS - 2000} == {
        "ad_impressions", "ad_clicks", "redirects", "rejected",
    }  # fmt: skip


def test_an_idle_pipeline_is_fresh() -> None:
    idle = msgspec.structs.replace(
        WELL, freshness=Freshness(complete_up_to_ms=NOW_MS, at_once_up_to_ms=NOW_MS), lags_s=dict.fromkeys(LIMITS.usual_s, 0)
    )
    assert (judge(idle, LIMITS).lag_s, judge(idle, LIMITS).exit_code) == (0, 0)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_named(fault: Fault) -> None:
    found = judge(fault.plant(WELL), LIMITS)
    assert (found.exit_code, found.slowest_stage) == (fault.code, fault.stage), found.problems
    assert fault.says in found.problems[0] + found.slowest_reason
    assert found.problems
    if fault.command:
        assert found.next_command == fault.command


def test_so_many_faults_are_told_apart() -> None:
    assert len(FAULTS) >= 20
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_a_broken_thing_comes_before_what_waits() -> None:
    seen = all_of(
        role("sink", answers=False, process=process(is_frozen=True)), role("etl", waits_for="rebalance"), lag("etl", 100)
    )(WELL)
    found = judge(seen, LIMITS)
    assert found.slowest_stage == "sink"
    assert found.problems[0].startswith("sink is silent")
    assert any(problem.startswith("etl is waiting") for problem in found.problems)


def test_of_two_broken_roles_the_one_with_the_oldest_things_is_the_slowest() -> None:
    frozen = process(is_frozen=True)
    seen = all_of(
        role("etl", answers=False, process=frozen), role("delivery", answers=False, process=frozen), lag("delivery", 200)
    )(WELL)
    assert judge(seen, LIMITS).slowest_stage == "delivery"


@pytest.mark.parametrize(
    ("seen_process", "is_loop"),
    [
        (process(age_s=10, deaths=deaths(100, 50, 10)), True),
        (process(age_s=61, deaths=deaths(100, 80, 61)), False),
        (process(age_s=10, deaths=deaths(900, 500, 10)), False),
        (process(age_s=10, deaths=deaths(50, 10)), False),
        (process(None, deaths=deaths(100, 50, 10)), True),
    ],
)
def test_a_crash_loop_is_three_deaths_in_five_minutes_without_a_healthy_minute(
    seen_process: ProcessSeen, is_loop: bool
) -> None:
    (found,) = [one for one in judge(role("sink", process=seen_process)(WELL), LIMITS).roles if one.role == "sink"]
    assert ("crash loop" in found.reason) is is_loop


def test_the_roles_of_another_machine_are_judged_by_their_answers_alone() -> None:
    seen = msgspec.structs.replace(
        WELL,
        is_local=False,
        roles=(
            RoleSeen(role="etl", url="http://a"),
            RoleSeen(role="etl", url="http://b", answers=False, is_refused=True),
            RoleSeen(role="sink", url="http://c", answers=False),
        ),
    )
    found = judge(seen, LIMITS)
    assert [state.state for state in found.roles] == [RoleState.READY, RoleState.DOWN, RoleState.SILENT]
    assert (found.exit_code, found.roles[1].reason) == (1, "nobody listens at http://b")


def test_a_lower_bound_of_completeness_is_not_called_late() -> None:
    seen = all_of(freshness(fresh(500, None, is_bound=True)), service("warehouse"))(WELL)
    assert not any("promised" in problem for problem in judge(seen, LIMITS).problems)


def test_the_answer_has_the_fields_of_the_contract() -> None:
    found = answer(WELL, judge(WELL, LIMITS), 300, {"collector": "http://c"})
    told = msgspec.to_builtins(found)
    assert told["healthy"] is True
    assert told["fresh_as_of"] == "2027-01-15T07:57:40.000Z"
    assert told["lag_s"] == 140
    assert {"role", "pid", "state", "reason", "restarts"} <= told["roles"][0].keys()
    assert told["oldest_uncovered"]["stage"] == "join"
    assert told["flows"]["ad_clicks"]["lag_s"] == 2


def exit_codes() -> set[int]:
    found: list[Judgement] = [judge(fault.plant(WELL), LIMITS) for fault in FAULTS]
    return {one.exit_code for one in found}


def test_a_fault_never_looks_healthy() -> None:
    assert exit_codes() == {1, 3}
