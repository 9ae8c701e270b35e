"""The parts of the local stack that need no services: ports, environment, folders, leftovers, restarts."""

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from app.errors import LocalStackError
from app.local.stack import ports
from app.local.stack.environment import LOCAL_VALUES, SERVICES, process_environment, role_variables, stack_variables
from app.local.stack.life import Home, Life, Started, State, end_leftovers, find, replace_file, started
from app.local.stack.ports import FREE_RANGE, Service, claim, claim_free, claim_ports, release
from app.local.stack.stack_file import enter, environment

PORTS = {service.name: 20_000 + n for n, service in enumerate(SERVICES)}


@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield listener.getsockname()[1]


def sleeper(seconds: float = 60) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])


# --- ports


def test_a_taken_usual_port_moves_and_says_so(taken_port):
    claims = claim_ports([Service("collector", "PORT", taken_port)], {})
    moved = claims["collector"]
    release(claims.values())
    assert moved.moved
    assert moved.port in FREE_RANGE


def test_a_taken_set_port_is_an_error_that_names_the_variable(taken_port):
    with pytest.raises(LocalStackError, match=rf"port {taken_port} \(PORT, collector\) is taken"):
        claim_ports([Service("collector", "PORT", 8000)], {"collector": taken_port})


def test_a_failed_claim_gives_the_others_up(taken_port, monkeypatch):
    holders = []

    def noted(port):
        holders.append(claim(port))
        return holders[-1]

    monkeypatch.setattr(ports, "claim", noted)
    services = [Service("one", "ONE"), Service("two", "TWO")]
    with pytest.raises(LocalStackError, match="two"):
        claim_ports(services, {"one": 0, "two": taken_port})
    held = [holder for holder in holders if holder is not None]
    assert [holder.fileno() for holder in held] == [-1]


def test_a_claim_keeps_other_stacks_away_and_lets_the_service_listen():
    mine = claim_free()
    assert claim(mine.port) is None
    with socket.socket() as service:
        service.bind(("127.0.0.1", mine.port))
        service.listen(1)
    release([mine])
    assert mine.holder.fileno() == -1


def test_zero_asks_for_any_free_port():
    claims = claim_ports([Service("collector", "PORT", 8000)], {"collector": 0})
    release(claims.values())
    assert claims["collector"].port in FREE_RANGE
    assert not claims["collector"].moved


# --- environment


def test_the_callers_settings_win_and_its_aws_does_not():
    caller = {
        "INSTREAM_SLACK_S": "7", "AWS_ENDPOINT_URL": "https://real", "AWS_ACCESS_KEY_ID": "real", "AWS_PROFILE": "prod",
        "INSTREAM_DATA_DIR": "/elsewhere", "PATH": "/bin", "NO_PROXY": "corp.example",
    }  # fmt: skip
    variables = stack_variables(Path("/home/x"), PORTS, caller)
    environment = process_environment(caller, variables)
    assert environment["INSTREAM_SLACK_S"] == "7"
    assert environment["INSTREAM_PARTITIONS"] == LOCAL_VALUES["INSTREAM_PARTITIONS"]
    assert environment["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{PORTS['aws']}"
    assert environment["AWS_ACCESS_KEY_ID"] == "local"
    assert environment["NO_PROXY"] == "corp.example,127.0.0.1,localhost"
    assert environment["PATH"] == "/bin"
    assert "AWS_PROFILE" not in environment
    assert "INSTREAM_DATA_DIR" not in environment


def test_roles_have_folders_and_ports_of_their_own():
    found = [role_variables(role, Path("/home/x"), PORTS) for role in ("etl", "sink")]
    assert found[0]["INSTREAM_DATA_DIR"] == "/home/x/data/etl"
    assert found[0]["INSTREAM_WEB_PORT"] != found[1]["INSTREAM_WEB_PORT"]
    assert found[0]["POLARS_MAX_THREADS"] == "1"


# --- folders and records


def test_one_lock_a_home(tmp_path):
    home = Home(tmp_path)
    assert not home.is_held()
    lock = home.acquire()
    assert lock is not None
    assert home.acquire() is None
    assert home.is_held()
    lock.close()
    assert not home.is_held()


def test_wiping_keeps_the_last_logs_and_says_whether_there_was_data(tmp_path):
    home = Home(tmp_path)
    assert not home.wipe()
    home.write_life(Life(state=State.ENDED, supervisor=Started("supervisor", 1, 0.0)))
    (home.logs / "etl.log").write_text("words")
    (home.data / "kafka").mkdir()
    home.stack_file.write_text("{}")
    assert home.wipe()
    assert (tmp_path / "logs.old" / "etl.log").read_text() == "words"
    assert list(home.data.iterdir()) == []
    assert not home.stack_file.exists()


def test_a_folder_with_foreign_data_is_not_wiped(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("years of work")
    with pytest.raises(LocalStackError, match="that no stack made"):
        Home(tmp_path).wipe()
    assert (tmp_path / "data" / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1024**3}))
    with pytest.raises(LocalStackError, match=r"only 1\.0 GiB are free"):
        Home(tmp_path).prepare()


@pytest.mark.parametrize(("content", "mode"), [(None, 0o700), ("life.json", 0o700), ("thesis.txt", 0o755)])
def test_a_home_is_for_its_user_alone_unless_it_has_foreign_files(tmp_path, content, mode):
    tmp_path.chmod(0o755)
    if content:
        (tmp_path / content).touch()
    Home(tmp_path).prepare()
    assert tmp_path.stat().st_mode & 0o777 == mode


def test_a_replaced_file_is_never_seen_in_part(tmp_path):
    target = tmp_path / "stack.json"
    target.touch(0o644)
    replace_file(target, b"old")
    assert target.stat().st_mode & 0o777 == 0o600
    with target.open("rb") as before:
        replace_file(target, b"new")
        assert before.read() == b"old"
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["stack.json"]


def test_leftovers_are_ended_only_where_they_are_the_recorded_ones():
    recorded, stranger = sleeper(), sleeper()
    try:
        records = [
            started("etl", recorded.pid),
            Started("sink", stranger.pid, psutil.Process(stranger.pid).create_time() - 60),
        ]
        life = Life(state=State.READY, supervisor=Started("supervisor", 1, 0.0), processes=records)
        assert end_leftovers(life) == ["etl"]
        assert not psutil.pid_exists(recorded.pid)
        assert stranger.poll() is None
        assert end_leftovers(life) == []
    finally:
        for process in (recorded, stranger):
            process.kill()
            process.wait()


def test_a_zombie_counts_as_ended():
    process = sleeper()
    record = started("etl", process.pid)
    assert find(record) is not None
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert find(record) is None
    process.wait()


# --- restarts


def test_a_stack_of_its_own_leaves_the_environment_as_it_was(monkeypatch, tmp_path):
    """A sweep has several stacks, one after the other: what one of them was told must not reach the next."""
    monkeypatch.setenv("INSTREAM_HOME", "elsewhere")
    monkeypatch.delenv("INSTREAM_DEDUP_WINDOW_S", raising=False)
    home = Home(tmp_path)
    home.stack_file.write_text('{"environment": {"INSTREAM_KAFKA": "127.0.0.1:1"}}')
    before = dict(os.environ)
    with suppress(LocalStackError), environment({"INSTREAM_HOME": str(tmp_path), "INSTREAM_DEDUP_WINDOW_S": "40"}):
        assert enter(home)
        assert os.environ["INSTREAM_DEDUP_WINDOW_S"] == "40"
        assert os.environ["INSTREAM_KAFKA"] == "127.0.0.1:1"
        raise LocalStackError("the block failed")
    assert dict(os.environ) == before
