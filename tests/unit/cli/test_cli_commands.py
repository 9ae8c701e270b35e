"""The command line: what it says, where, and its exit codes."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import structlog
from pyroaring import BitMap
from typer.testing import CliRunner

from agents.audit.coverage import Uncovered, Waited, await_coverage
from agents.audit.stored_ledger import StoredLedger
from app.adapters.warehouse_port import Delivered, Delivery, Quarantined
from app.cli.main import app
from app.cli.show import Exit, print_table
from app.cli.wait import exit_code_of
from app.core.audit.reconcile import LedgerLines
from app.core.formats.registry_item import RegistryItem
from app.progress import Bar, ProgressLines, time_left
from app.settings import Settings
from app.testing.memory import MemoryObjectStore, MemoryRegistry
from tests.worlds.command_line import OF_SIGNALS, Ran, run_here

COMMANDS = ("up", "down", "status", "wait", "load", "audit", "init", "demo", "repair-log", "trace", "index")


@pytest.fixture(autouse=True)
def own_logging():
    """A command sets up logging for its process; here it shares the process with other tests."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTREAM_HOME", str(tmp_path / "home"))
    return lambda *words: CliRunner().invoke(app, list(words))


def instream(home: Path | str, *words: str) -> Ran | subprocess.CompletedProcess[str]:
    if words[0] not in OF_SIGNALS:
        return run_here(*words, INSTREAM_HOME=str(home))
    return as_process(home, *words)


def as_process(home: Path | str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("instream"), *words], capture_output=True, text=True, check=False,
        env=os.environ | {"INSTREAM_HOME": str(home)},
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_offers_json(run, command):
    result = run(command, "--help")
    assert result.exit_code == Exit.OK
    assert "--json" in result.output


@pytest.mark.parametrize("group", ["sink", "delivery"])
def test_groups_of_commands_are_mounted(tmp_path, group):
    result = instream(tmp_path / "home", group, "--help")
    assert result.returncode == Exit.OK
    assert f"Usage: instream {group}" in result.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["fly"],
        ["load", "--events", "none"],
        ["load", "--events", "0"],
        ["load", "--events", "1" + 20 * "0"],
        ["up", "now"],
        ["audit", "--grace", "inf"],
        ["replay", ""],
        ["wait", "--timeout", "nan"],
    ],
)
def test_a_wrong_use_is_exit_code_2(run, words):
    assert run(*words).exit_code == Exit.USAGE


def test_status_of_nothing(run):
    result = run("status", "--json")
    assert result.exit_code == Exit.FAILURE
    assert msgspec.json.decode(result.stdout)["state"] == "absent"


def test_down_of_nothing_is_fine_twice(run):
    assert [run("down").exit_code for _ in range(2)] == [Exit.OK, Exit.OK]


def test_an_error_is_one_line_without_a_traceback(tmp_path):
    result = as_process(tmp_path / "home", "load")
    assert result.returncode == Exit.FAILURE
    assert result.stderr == "instream: no stack is up here: run `instream up` (or set INSTREAM_HOME)\n"
    assert result.stdout == ""


def test_a_setting_that_does_not_fit_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTREAM_PARTITIONS", "many")
    result = instream(tmp_path / "home", "up")
    assert result.returncode == Exit.USAGE
    assert result.stderr.startswith("instream: settings do not fit: INSTREAM_PARTITIONS")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["up"], ["down"], ["status"], ["audit"], ["delivery", "quarantined"]], ids=" ".join)
def test_an_empty_home_is_a_wrong_use(words):
    result = instream("", *words)
    assert result.returncode == Exit.USAGE
    assert result.stderr == "instream: settings do not fit: INSTREAM_HOME='': give a value, or unset it for the default\n"


def test_up_without_jars_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTREAM_KAFKA_JARS", str(tmp_path))
    result = instream(tmp_path / "home", "up")
    assert result.returncode == Exit.FAILURE
    assert "run `make setup`" in result.stderr


def test_a_demo_that_cannot_start_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INSTREAM_KAFKA_JARS", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    result = instream(tmp_path / "home", "demo")
    assert result.returncode == Exit.FAILURE
    assert "run `make setup`" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["up"], ["status"], ["load"], ["wait"]])
def test_a_home_that_is_no_folder_is_one_line(tmp_path, words):
    home = tmp_path / "file"
    home.touch()
    result = instream(home, *words)
    assert result.returncode == Exit.FAILURE
    assert result.stderr.startswith("instream: ")
    assert str(home) in result.stderr
    assert result.stderr.count("\n") == 1


KAFKA, WAREHOUSE, AWS = "INSTREAM_KAFKA", "INSTREAM_WAREHOUSE_URL", "INSTREAM_BUCKET"
ASKED = {
    ("wait", "--timeout", "1"): {WAREHOUSE, AWS},
    ("audit",): {KAFKA, WAREHOUSE, AWS},
    ("init",): {KAFKA, WAREHOUSE, AWS},
    ("init", "--plan"): {WAREHOUSE},
    ("replay", "--all"): {WAREHOUSE, AWS},
    ("trace", "e-1"): {WAREHOUSE, AWS},
    ("index",): {AWS},
    ("dead-letters",): {KAFKA},
    ("repair-log",): {KAFKA, AWS},
    ("delivery", "quarantined"): {WAREHOUSE},
    ("delivery", "release", "a"): {WAREHOUSE, AWS},
    ("sink", "accept-gap", "--partition", "0", "--reason", "me"): {KAFKA, AWS},
}
"""Command -> the settings that name the services that it asks."""


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_a_command_without_a_stack_asks_no_service_that_nobody_named(tmp_path, monkeypatch, words):
    """A stranger's stack may listen on the usual ports."""
    for name in (KAFKA, WAREHOUSE, AWS):
        monkeypatch.delenv(name, raising=False)
    result = instream(tmp_path, *words)
    assert result.returncode == Exit.FAILURE
    assert f"no stack is up in {tmp_path}" in result.stderr
    assert "run `instream up`" in result.stderr
    assert {name for name in (KAFKA, WAREHOUSE, AWS) if name in result.stderr} == ASKED[words]
    assert result.stderr.count("\n") == 1


def test_a_service_that_is_named_is_asked_and_a_failure_says_how_to_get_a_stack(tmp_path, monkeypatch, unused_tcp_port):
    monkeypatch.setenv(WAREHOUSE, f"postgresql://instream@127.0.0.1:{unused_tcp_port}/instream")
    result = instream(tmp_path, "delivery", "quarantined")
    assert result.returncode == Exit.FAILURE
    assert f"None is up in {tmp_path}: run `instream up`" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_bar_is_lines_where_nobody_watches(capsys):
    with Bar(ProgressLines(), "batches are covered", every_s=0) as bar:
        bar(1, 2000)
        bar(2000, 2000, "the warehouse does not answer")
    assert capsys.readouterr().err == (
        "1 of 2,000 batches are covered\n2,000 of 2,000 batches are covered; the warehouse does not answer\n"
    )


@pytest.mark.parametrize(
    ("took_s", "done", "left", "words"),
    [(10, 5, 1, "2 s"), (10, 1, 8, "80 s"), (60, 1, 2, "2 min"), (60, 1, 89, "89 min"), (60, 1, 90, "1.5 h")],
)
def test_the_time_left_is_that_of_the_pace_so_far(took_s: int, done: int, left: int, words: str) -> None:
    assert time_left(took_s, done, left) == words


def test_a_bar_says_how_long_the_rest_takes_once_it_has_a_pace(capsys, monkeypatch):
    moments = iter([100.0, 100.0, 100.0, 110.0])  # two calls when it is made
    monkeypatch.setattr("app.progress.time", SimpleNamespace(monotonic=lambda: next(moments, 110.0)))
    with Bar(ProgressLines(), "batches", every_s=0) as bar:
        bar(1, 11)
        bar(6, 11)
    assert capsys.readouterr().err == "1 of 11 batches\n6 of 11 batches, about 10 s left\n"


def test_a_bar_is_drawn_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Bar(ProgressLines(), "batches are covered") as bar:
        bar(3, 7)
    drawn = capsys.readouterr().err
    assert "3/7" in drawn
    assert "batches are covered" in drawn


def test_the_command_line_loads_no_client_before_it_needs_one(tmp_path):
    heavy = "{'boto3', 'aiokafka', 'psycopg', 'polars', 'faust', 'moto', 'aiohttp'}"
    code = f"import sys, app.cli.main; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path).returncode == 0


def test_a_table_is_plain_where_nobody_watches(capsys):
    print_table("title", ("name", "rows"), [("a", 12345), ("long name", None)])
    assert capsys.readouterr().out == "title\nname         rows\na          12,345\nlong name\n"


# --- wait


def batch(batch_id: str, lines: int) -> RegistryItem:
    return RegistryItem(
        batch_id=batch_id, epoch=1, line_count=lines, byte_count=0, sha256="", raw_key="", blocks=[], received_at_ms=0
    )


def entry(*lines: int) -> LedgerLines:
    import base64

    return LedgerLines("page_views", len(lines), base64.b64encode(BitMap(lines).serialize()).decode())


class Ledger:
    """A warehouse's ledger, in memory."""

    def __init__(self, **entries: list[LedgerLines]) -> None:
        self.held = entries
        self.dead: dict[str, dict[int, str]] = {}
        self.asked: list[list[str]] = []

    async def entries(self, batch_ids):
        self.asked.append(list(batch_ids))
        return {batch_id: self.held[batch_id] for batch_id in batch_ids if batch_id in self.held}

    async def dead_letters(self, batch_ids):
        return {batch_id: self.dead[batch_id] for batch_id in batch_ids if batch_id in self.dead}


class Held(StoredLedger):
    """Ledger files of which one transaction holds lines."""

    def __init__(self, lines: dict[str, BitMap]) -> None:
        super().__init__(MemoryObjectStore(), 1)
        self.lines = lines

    async def of(self, partition, number):
        return {"1-0-1-aa": self.lines}


NOTHING_HELD = Delivery({}, [])


async def test_wait_asks_only_for_what_is_not_covered_yet():
    ledger = Ledger(a=[entry(0, 1), entry(2)], b=[entry(0)])
    uncovered = Uncovered([batch("a", 3), batch("b", 2)])
    assert await uncovered.look(ledger, Held({}), NOTHING_HELD)
    ledger.held["b"].append(entry(1))
    assert not await uncovered.look(ledger, Held({}), NOTHING_HELD)
    assert ledger.asked == [["a", "b"], ["b"]]
    assert exit_code_of(uncovered.result(1)) is Exit.OK


async def test_wait_names_what_is_missing():
    uncovered = Uncovered([batch("a", 3), batch("b", 1)])
    assert await uncovered.look(Ledger(b=[entry(0)]), Held({}), NOTHING_HELD)
    result = uncovered.result(1)
    assert (result.covered, result.missing, result.named) == (1, 1, {"missing": ["a"]})
    assert exit_code_of(result) is Exit.INCOMPLETE


async def test_wait_says_which_of_the_missing_could_not_be_read():
    ledger = Ledger(b=[entry(0)])
    ledger.dead = {"a": {4: "FrameInvalid: garbage", 2: "FrameInvalid: cut off"}, "b": {0: "its second copy was fine"}}
    uncovered = Uncovered([batch("a", 3), batch("b", 1), batch("c", 1)])
    assert await uncovered.look(ledger, Held({}), NOTHING_HELD)
    result = uncovered.result(1)
    assert (result.missing, result.dead_lettered, exit_code_of(result)) == (2, 1, Exit.INCOMPLETE)
    assert result.named == {
        "missing": ["a", "c"], "dead_lettered": ["a: block 2: FrameInvalid: cut off (and 1 more)"]
    }  # fmt: skip


async def test_wait_ends_at_once_where_the_rest_is_held():
    delivery = Delivery({0: Delivered(1, 0)}, [Quarantined("1-0-1-aa", 0, 1)])
    uncovered = Uncovered([batch("a", 3)])
    assert not await uncovered.look(Ledger(a=[entry(0)]), Held({"a": BitMap([1, 2])}), delivery)
    assert uncovered.result(1).named == {"held": ["a"]}
    assert exit_code_of(uncovered.result(1)) is Exit.INCOMPLETE


async def test_a_ledger_with_more_than_the_batch_is_a_failure():
    uncovered = Uncovered([batch("a", 2)])
    assert not await uncovered.look(Ledger(a=[entry(0, 1), entry(1)]), Held({}), NOTHING_HELD)
    assert uncovered.result(1).excess == 1
    assert exit_code_of(uncovered.result(1)) is Exit.FAILURE


def test_nothing_registered_is_covered():
    assert exit_code_of(Waited(registered=0)) is Exit.OK


class Registry(MemoryRegistry):
    async def close(self) -> None:
        """Nothing."""


class Bucket(MemoryObjectStore):
    async def close(self) -> None:
        """Nothing."""


class Slow(Ledger):
    """A ledger that covers a batch every eight seconds, and its fifth one never."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds):
        self.now_s += seconds
        self.held = {f"b{n}": [entry(0)] for n in range(4) if 8 * n <= self.now_s}

    async def delivery(self, _):
        return NOTHING_HELD

    async def close(self):
        """Nothing."""


@pytest.mark.parametrize(("while_it_moves", "ends_s", "covered"), [(False, 10, 2), (True, 34, 4)])
async def test_a_wait_may_count_its_time_from_the_last_batch_covered(monkeypatch, while_it_moves, ends_s, covered):
    registry, ledger = Registry(), Slow()
    for number in range(5):
        await registry.register(batch(f"b{number}", 1))
    monkeypatch.setattr("agents.audit.coverage.DynamoRegistry", lambda _: registry)
    monkeypatch.setattr("agents.audit.coverage.S3ObjectStore", lambda _: Bucket())
    monkeypatch.setattr("agents.audit.coverage.WarehouseLedger", lambda *_: ledger)
    monkeypatch.setattr("agents.audit.coverage.time", ledger)
    monkeypatch.setattr("agents.audit.coverage.asyncio", ledger)
    result = await await_coverage(Settings(), 10, lambda *_: None, while_it_moves=while_it_moves)
    assert (result.took_s, result.covered, result.missing) == (ends_s, covered, 5 - covered)
