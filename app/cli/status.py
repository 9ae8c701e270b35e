"""`instream status`: how far the warehouse is complete, the state of each role, and what to do next."""

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from app.cli.show import JsonOption, print_json, print_table

if TYPE_CHECKING:
    from app.core.status.answer import Answer
    from app.core.status.judge import RoleJudged, StatusLimits
    from app.core.status.seen import Seen
    from app.local.stack.processes import LocalStack


def status(as_json: JsonOption = False) -> None:
    """Show how far the warehouse is complete, the state of every role, and what to do next.

    Off the local stack it asks the addresses in INSTREAM_ROLE_URLS. Exit codes: 0 all is well, 3 the warehouse is late or a
    role waits, 1 something is broken or no stack is up.
    """
    from app.clock import SystemClock  # noqa: PLC0415
    from app.local.stack.processes import look_at  # noqa: PLC0415 - commands load what they need
    from app.local.stack.stack_file import enter, home_of_environment  # noqa: PLC0415

    clock, home = SystemClock(), home_of_environment()
    local: LocalStack = look_at(home, clock.now_ms())
    shown: LocalStack | None = local
    is_held_up = False
    is_up = local.stack is not None and enter(home)
    if is_up or "INSTREAM_ROLE_URLS" in os.environ:
        from agents.audit.status.observe import elsewhere, limits_of, observe  # noqa: PLC0415
        from app.local.stack.settings import read_local_settings  # noqa: PLC0415
        from app.settings import read_settings  # noqa: PLC0415

        settings = read_settings()
        shown = local if is_up else None
        limits = limits_of(settings, read_local_settings().restart_healthy_s)
        seen, is_held_up = asyncio.run(observe(settings, local.installation if is_up else elsewhere(settings), clock))
    else:
        seen, limits = _without_stack(local, clock.now_ms()), _no_limits()
    from app.core.status.answer import answer  # noqa: PLC0415
    from app.core.status.judge import judge  # noqa: PLC0415

    judged = judge(seen, limits)
    found = answer(seen, judged, limits.freshness_s, urls(shown))
    if as_json:
        print_json(_with_stack(found, shown, str(home.path)))
    else:
        _show(found, shown, str(home.path))
    if is_held_up:  # threads wait for a service that does not answer, and the interpreter would wait for them
        sys.stdout.flush()
        os._exit(judged.exit_code)
    raise typer.Exit(judged.exit_code)


def _without_stack(local: "LocalStack", now_ms: int) -> "Seen":
    """What is seen of a stack that is not up."""
    from app.core.status.seen import Seen  # noqa: PLC0415

    return Seen(now_ms=now_ms, stack_state=local.installation.state, stack_failure=local.installation.failure)


def _no_limits() -> "StatusLimits":
    from app.core.status.judge import StatusLimits  # noqa: PLC0415

    return StatusLimits(0, {})


def urls(local: "LocalStack | None") -> dict[str, str]:
    """The addresses of a local stack, without secrets."""
    if local is None or local.stack is None:
        return {}
    from app.warehouse_url import redacted_url  # noqa: PLC0415

    stack = local.stack
    found = {
        "collector": f"{stack.collector_url}/v1/events",
        "warehouse": redacted_url(stack.warehouse_url),
        "kafka": stack.kafka,
        "aws": stack.aws_endpoint,
    }
    return found | ({"dashboard": stack.dashboard} if stack.dashboard else {})


def _with_stack(found: "Answer", local: "LocalStack | None", home: str) -> dict[str, Any]:
    """The answer with the fields that tell of the local stack."""
    told: dict[str, Any] = msgspec.to_builtins(found)
    if local is None:
        return told
    stack, place = local.stack, local.installation
    known = {worker.role: worker.process for worker in place.workers} | dict(place.services)
    processes = [
        {"name": name, "pid": one.pid or 0, "running": one.pid is not None, "restarts": one.restarts, "log": one.log}
        for name, one in known.items()
        if one is not None
    ]
    return told | {
        "state": place.state, "home": home, "failure": place.failure,
        "collector_url": None if stack is None else stack.collector_url,
        "warehouse_url": found.urls.get("warehouse"), "processes": processes,
    }  # fmt: skip


def _show(found: "Answer", local: "LocalStack | None", home: str) -> None:
    """Print the answer for people."""
    state = f"  {local.installation.state}  {home}" if local is not None else ""
    print(f"{found.verdict}{state}")
    for problem in found.problems:
        print(f"  {problem}")
    if found.roles:
        rows = [
            (one.role, str(one.pid or ""), one.state.value, one.restarts, _seconds(one.lag_s), _reason(one))
            for one in found.roles
        ]
        print_table("roles", ("role", "pid", "state", "restarts", "lag_s", "reason"), rows)
        silent = ", ".join(service.name for service in found.services if not service.answers)
        print(f"services: {f'no use of {silent}' if silent else 'all answer'}")
        _show_freshness(found)
    for name, url in found.urls.items():
        print(f"{name:<10} {url}")
    print(f"next: {found.next_command}")


def _seconds(lag_s: float | None) -> str:
    return "" if lag_s is None else f"{lag_s:.1f}"


def _reason(role: "RoleJudged") -> str:
    """Why a role is not ready; the last error of one that was started again."""
    return role.reason or (f"last error: {role.last_error}" if role.restarts and role.last_error else "")


def _show_freshness(found: "Answer") -> None:
    if found.fresh_as_of is None or found.lag_s is None:
        print("it is not known how far the warehouse is complete")
        return
    at_least = "at least " if found.fresh_as_of_is_bound else ""
    print(f"warehouse is complete {at_least}up to {_clock(found.fresh_as_of)} ({found.lag_s:.0f} s ago)")
    for flow, one in found.flows.items():
        print(f"  {flow:<14} up to {_clock(one.fresh_as_of)} ({one.lag_s:.0f} s ago)")
    for name, batch in (("oldest uncovered batch", found.oldest_uncovered), ("oldest held batch", found.held)):
        if batch is not None:
            until = f" until {_clock(batch.until)}" if batch.until else ""
            detail = f": {batch.detail}" if batch.detail else ""
            print(f"{name}: {batch.batch_id}, {batch.age_s:.0f} s old, stage {batch.stage or 'unknown'}{until}{detail}")
    if found.slowest_stage:
        print(f"slowest stage: {found.slowest_stage}: {found.slowest_reason}")


def _clock(moment: str) -> str:
    """The time of day, UTC, of an ISO moment; with its day if that is not today's."""
    from datetime import UTC, datetime  # noqa: PLC0415

    at = datetime.fromisoformat(moment)
    return at.strftime("%H:%M:%S" if at.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M:%S")
