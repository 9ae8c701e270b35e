"""The running stack: its contract, exact rows under realistic load, and what happens when parts of it die."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess

import aiohttp
import msgspec
import psutil
import pytest

from app.bench.whole_path import load_and_compare
from app.cli.demo import show
from app.local.stack.environment import ROLES
from app.local.stack.spare import SPARE
from app.local.traffic.run import TrafficPlan, run_traffic
from app.progress import ProgressLines
from tests.e2e.live_stack import INSTREAM, PATIENT, LiveStack
from tests.rig.restarts.clients import Clients
from tests.rig.status.drill import until_healthy
from tests.worlds.waiting import HANGS_S, eventually

pytestmark = pytest.mark.stack


def test_stack_json_is_the_contract(stack):
    found = json.loads(stack.home.stack_file.read_text())
    assert not found["collector_url"].endswith("/")
    assert {"warehouse_url", "kafka", "aws_endpoint", "bucket", "stream", "registry_table", "dashboard"} <= found.keys()
    assert [process["role"] for process in found["processes"]] == list(ROLES)
    assert found["metrics"].keys() == set(ROLES)
    for process in found["processes"]:
        command = psutil.Process(process["pid"]).cmdline()
        assert "app.collector" in command or f"app.worker:{process['role']}" in command
        assert os.path.getsize(process["log"]) > 0
    assert found["settings"]["join_window_s"] == 5


async def test_every_role_answers_health_ready_and_metrics(stack):
    async with aiohttp.ClientSession() as session:
        for url in stack.stack.metrics.values():
            for page in ("health", "ready", "metrics"):
                async with session.get(url.replace("/metrics", f"/{page}")) as answer:
                    assert answer.status == 200, url
        async with session.get(f"{stack.stack.collector_url}/health") as answer:
            assert answer.status == 200


def test_up_again_leaves_everything_as_it_is(stack):
    before = stack.stack
    done = stack.instream("up", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["processes"] == [
        {"role": process.role, "pid": process.pid, "log": process.log} for process in before.processes
    ]
    assert "INSTREAM_WRITE_KEYS" in before.environment
    assert "demo:browser" not in done.stdout + done.stderr
    assert "the stack is up" in done.stderr


def test_only_its_user_may_read_the_files_of_a_stack(stack):
    home = stack.home.path
    files = [path for path in (home, *home.rglob("*")) if not path.is_symlink()]
    open_to_others = []
    for path in files:
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # a table of RocksDB that was replaced meanwhile
        if status.st_mode & 0o077 and not stat.S_ISSOCK(status.st_mode):
            open_to_others.append(str(path))
    assert open_to_others == []
    assert len(files) > 100


async def test_status_says_that_everything_runs(stack):
    found = (await until_healthy(stack.caller, HANGS_S)).answer
    assert found["healthy"] is True
    assert found["state"] == "ready"
    assert len(found["processes"]) == len(ROLES) + 4
    assert all(process["running"] for process in found["processes"])


def test_a_set_port_that_is_taken_is_an_error_and_leaves_nothing(stack, tmp_path):
    port = stack.stack.collector_url.rpartition(":")[2]
    other = LiveStack(tmp_path / "other", {"INSTREAM_COLLECTOR_PORT": port})
    done = other.instream("up")
    assert done.returncode == 1
    assert f"port {port} (INSTREAM_COLLECTOR_PORT, collector) is taken" in done.stderr
    assert not other.home.is_held()
    life = other.home.read_life()
    assert life is not None
    assert life.processes == []


async def test_realistic_traffic_is_in_the_warehouse_row_by_row(stack, capsys):
    result = await load_and_compare(stack.stack, 5000, 1000, ProgressLines())
    assert result.equal, result.compared
    assert (result.sent.lines, result.waited.missing) == (5000, 0)
    flows = result.compared.flows
    assert result.compared.joined.found + flows["engagements"].found > 900, "the second events, however late they came"
    assert result.compared.joined.found > 20
    assert result.compared.duplicates.found > 150
    assert all(bounds.found > 20 for bounds in flows.values())
    assert set(result.latency) == {"all", "page views", "without join"}
    show(result)
    assert "EQUAL: 0 missing, 0 extra, 0 different" in capsys.readouterr().out
    assert json.loads(msgspec.json.encode(result))["equal"] is True


def test_the_audit_completes_what_is_covered(stack):
    done = stack.instream("audit", "--grace", "0", "--json")
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert (report["lost"], report["excess"], report["replayed"]) == (0, 0, 0)


def test_init_again_changes_nothing(stack):
    done = stack.instream("init", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert "topic blocks-e1" in answer["present"]
    assert (answer["changed"], answer["left_alone"]) == ([], [])


def test_load_and_wait_as_commands(stack):
    done = stack.instream("load", "--events", "300", "--rate", "300", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["lines"] == 300
    parts = [*summary["rows"].values(), summary["duplicates"], summary["joined"]]
    bounds = [part if isinstance(part, list) else [part, part] for part in parts]  # two where a stall left a doubt
    assert sum(least for least, _ in bounds) <= 300 <= sum(most for _, most in bounds)
    done = stack.instream("wait", "--timeout", str(HANGS_S), "--json")
    assert done.returncode == 0, done.stderr
    waited = json.loads(done.stdout)
    assert waited["covered"] == waited["registered"] > 0


async def test_wait_says_in_time_that_something_is_missing(stack):
    assert (await stack.wait()).is_covered
    with stack.nothing_loaded():
        assert await stack.post("not-yet") == 200
        done = await asyncio.to_thread(stack.instream, "wait", "--timeout", "0", "--json")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["missing"] == 1
    assert (await stack.wait()).is_covered


def spare_pid(live: LiveStack, *known: int) -> int:
    """The pid of the collector's spare, none of the `known`, once it is recorded."""

    def found() -> list[int]:
        life = live.home.read_life()
        return [record.pid for record in life.processes if record.name == SPARE and record.pid not in known] if life else []

    eventually(found)
    return found()[0]


async def test_a_killed_collector_is_followed_at_once_by_one_that_was_there_before(stack):
    """Twice, the second time while the next spare is still warming up; `make restarts` says how long clients wait.

    That a spare waits for no timer from its turn to its first answer is tested in `tests.agents.collector`.
    """
    spare = spare_pid(stack)
    restarts = stack.stack.restarts["collector"]
    async with Clients(stack.stack.collector_url) as clients:
        for times in (1, 2):
            old_pid = stack.kill("collector")
            await clients.all_answered()
            stack.await_restart("collector", old_pid)
            assert stack.stack.pid_of("collector") == spare
            assert stack.stack.restarts["collector"] == restarts + times
            begun = {"event": "process started again", "process": "collector", "pid": spare}
            eventually(lambda: stack.supervisor_said(**begun))  # noqa: B023
            assert [entry["after_s"] for entry in stack.supervisor_said(**begun)] == [0]
            assert [process.role for process in stack.stack.processes] == list(ROLES)
            spare = spare_pid(stack, spare)


async def test_rows_stay_exact_while_kafka_and_the_warehouse_die(stack):
    in_the_middle = asyncio.Event()
    plan = TrafficPlan(events=3000, rate=300, seed=3, **PATIENT)
    loading = asyncio.create_task(run_traffic(stack.stack, plan, lambda lines: in_the_middle.set() if lines > 900 else None))
    await in_the_middle.wait()
    killed = {name: stack.kill(name) for name in ("kafka", "postgres", "warehouse")}
    run = await loading
    for name, old_pid in killed.items():
        stack.await_restart(name, old_pid)
    await stack.compare_exact(run)


def test_up_leaves_nobody_with_its_callers_descriptors(stack):
    """What `up` inherits beyond its own three is in none of its processes: the pipe ends when `up` does."""
    reading, writing = os.pipe()
    subprocess.run([INSTREAM, "up"], env=stack.caller, pass_fds=(writing,), capture_output=True, check=True)
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)
    for process in [*stack.stack.processes, *stack.stack.infrastructure]:
        for number in (0, 1, 2):
            target = os.readlink(f"/proc/{process.pid}/fd/{number}")
            assert target in {"/dev/null", process.log}, (process, number, target)


def test_sides(stack, tmp_path):
    """A second HOME beside the first: moved ports are named, its end is clean, the first does not notice."""
    before = [process.pid for process in stack.stack.processes]
    other = LiveStack(tmp_path / "other", {})
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8000))
            taken.listen(1)
        except OSError:
            pass  # somebody has it already, which is what this is for
        reading, writing = os.pipe()
        rival = subprocess.Popen([INSTREAM, "up"], env=other.caller, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started = subprocess.run(
            [INSTREAM, "up"], env=other.caller, pass_fds=(writing,), capture_output=True, text=True, check=False
        )
        assert rival.wait() == 0  # one of the two started the stack, the other waited for it
    assert started.returncode == 0, started.stderr
    os.close(writing)
    assert os.read(reading, 1) == b""  # the whole start ran with this pipe open, and nobody kept it
    os.close(reading)
    assert "port 8000 is taken: collector listens on" in started.stderr
    assert [process.pid for process in stack.stack.processes] == before
    pids = [process.pid for process in [*other.stack.processes, *other.stack.infrastructure]]
    abandon_and_take_over(other, [*pids, spare_pid(other)])
    lose_the_aws_stand_in(other)
    assert [process.pid for process in stack.stack.processes] == before


def abandon_and_take_over(other: LiveStack, pids: list[int]) -> None:
    """A killed supervisor leaves its processes; `down` ends exactly those, twice is fine, and `up` begins anew."""
    os.kill(other.stack.supervisor_pid, signal.SIGKILL)
    eventually(lambda: not other.home.is_held())
    assert json.loads(other.instream("status", "--json").stdout)["state"] == "abandoned"
    done = other.instream("up")
    assert done.returncode == 0, done.stderr
    assert "ended what an earlier supervisor left running" in done.stderr
    assert "removed the data of the last life" in done.stderr
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def lose_the_aws_stand_in(other: LiveStack) -> None:
    """Without the stand-in's memory the life is over: everything ends, and `status` says why."""
    pids = [process.pid for process in [*other.stack.processes, *other.stack.infrastructure]]
    pids.append(spare_pid(other))
    other.kill("aws")
    eventually(lambda: not other.home.is_held())
    found = json.loads(other.instream("status", "--json").stdout)
    assert found["state"] == "ended"
    assert found["failure"] == "aws died (signal SIGKILL)"
    assert not other.home.stack_file.exists()
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    for _ in range(2):
        other.down()
