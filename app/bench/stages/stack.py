"""`stack`: the whole local stack under traffic at a rate, every row compared; CPU by role and latency to the warehouse."""

import asyncio
import time

import psutil

from app.bench.measure import BenchRun
from app.bench.plan import BenchPlan
from app.bench.whole_path import load_and_compare
from app.errors import BenchmarkWrong
from app.local.stack.own_stack import COMPRESSED, own_stack
from app.progress import ProgressLines


def run(plan: BenchPlan) -> list[BenchRun]:
    """The stage; the join window and the intervals are compressed as in `instream demo`, or the defaults (`real_time`).

    Raises:
        BenchmarkWrong: the warehouse has other rows than were sent.
    """
    return [_run_once(plan) for _ in range(plan.repeats)]


def _run_once(plan: BenchPlan) -> BenchRun:
    say = ProgressLines()
    with own_stack({} if plan.real_time else COMPRESSED, say) as stack:
        processes = {one.role: psutil.Process(one.pid) for one in [*stack.processes, *stack.infrastructure]}
        before = {role: _cpu_s(process) for role, process in processes.items()}
        start_s = time.monotonic()
        result = asyncio.run(load_and_compare(stack, plan.events, plan.rate, say))
        wall_s = time.monotonic() - start_s
        used = {role: _cpu_s(process) - before[role] for role, process in processes.items()}
        rss = max(process.memory_info().rss for process in processes.values())
    if not result.equal:
        raise BenchmarkWrong("the warehouse does not have what was sent")
    lines = result.sent.lines
    more = {f"{role}_us": 1e6 * cpu_s / lines for role, cpu_s in used.items()}
    for name, latency in result.latency.items():
        more |= {
            f"{name}_p50_s": latency.p50_s, f"{name}_p95_s": latency.p95_s, f"{name}_p99_s": latency.p99_s,
            f"{name}_max_s": latency.max_s,
        }  # fmt: skip
    ours = sum(cpu_s for role, cpu_s in used.items() if role in {one.role for one in stack.processes})
    return BenchRun(events=lines, cpu_s=ours, wall_s=wall_s, peak_rss_bytes=rss, more=more)


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)
