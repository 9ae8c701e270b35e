"""Every command in the README is run, long ones with less to do; every name in it exists."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from app.adapters.warehouse import connect
from tests.e2e.live_stack import ANY_PORTS, INSTREAM, LiveStack
from tests.worlds.waiting import HANGS_S

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SHELL = re.findall(r"^```sh\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
SQL = re.findall(r"^```sql\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in SHELL for line in re.sub(r"\\\n|\n(?= )", " ", block).splitlines()]
OWN_STACK = "make demo"
"""A command that starts a stack of its own and needs no other."""
LESS = {
    OWN_STACK: "make demo EVENTS=1500",
    ".venv/bin/instream load --events 3000 --rate 500": ".venv/bin/instream load --events 300 --rate 300",
    ".venv/bin/instream wait --timeout 120": f".venv/bin/instream wait --timeout {HANGS_S:g}",
}
"""Long commands, and what the test runs in their place; it waits for as long as the machine takes."""
ELSEWHERE = {"make test", ".venv/bin/instream down"}
"""This test is part of the first; the second ends the stack that other tests use: `test_down_where_nothing_is_up`."""


def run(command: str, stack: LiveStack) -> subprocess.CompletedProcess[str]:
    environment = stack.caller | {"PATH": os.environ["PATH"]}
    return subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_readme_has_its_commands() -> None:
    assert COMMANDS[:2] == [OWN_STACK, "make test"]
    assert set(LESS) | ELSEWHERE <= set(COMMANDS)
    assert len(COMMANDS) == len(set(COMMANDS)) >= 8


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ELSEWHERE | {OWN_STACK}], ids=lambda c: c[:40])
def test_a_command_of_the_readme(command: str, stack: LiveStack) -> None:
    done = run(LESS.get(command, command).replace("http://127.0.0.1:8000", stack.stack.collector_url), stack)
    assert done.returncode == 0, done.stdout + done.stderr
    if command.startswith("curl"):
        answer = r'\{"accepted": ?1, ?"batch_id": ?"[0-9a-f-]{36}", ?"malformed": ?0, ?"reasons": ?\[\]\}'
        assert re.fullmatch(answer, done.stdout.strip())


def test_the_demo(tmp_path: Path) -> None:
    done = run(LESS[OWN_STACK], LiveStack(tmp_path / "home", ANY_PORTS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EQUAL: 0 missing, 0 extra, 0 different" in done.stdout


def test_down_where_nothing_is_up(tmp_path: Path) -> None:
    LiveStack(tmp_path / "home", {}).down()


async def test_the_queries_of_the_readme(stack: LiveStack) -> None:
    assert SQL
    async with await connect(stack.stack.warehouse_url) as connection:
        for query in SQL:
            found = await connection.execute(query.encode())
            assert found.description


@pytest.mark.parametrize("words", sorted(set(re.findall(r"`instream ([a-z][a-z-]*(?: [a-z][a-z-]*)?)", README))))
def test_a_command_that_the_readme_names(words: str) -> None:
    done = subprocess.run([INSTREAM, *shlex.split(words), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_places_that_the_readme_links_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)
