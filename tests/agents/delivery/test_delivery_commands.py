"""`instream delivery ...` and the wiring of the worker."""

import asyncio
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from app.cli.delivery import app as commands
from tests.agents.delivery.test_delivery import deliver, frames, lines_loaded, misfit
from tests.worlds.warehouse import Warehouse, put_transaction


@pytest.fixture
def cli(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("INSTREAM_WAREHOUSE_URL", warehouse.settings.warehouse_url)
    monkeypatch.setenv("INSTREAM_BUCKET", warehouse.settings.bucket)
    return CliRunner()


def test_quarantined_lists_what_release_then_loads(warehouse: Warehouse, cli: CliRunner) -> None:
    assert cli.invoke(commands, ["quarantined"]).output == "nothing is quarantined\n"
    record = asyncio.run(put_transaction(warehouse, 1, frames(0, 2), damage={"page_views": misfit()}))
    asyncio.run(deliver(warehouse))

    listed = cli.invoke(commands, ["quarantined", "--json"])
    assert listed.exit_code == 3
    (found,) = json.loads(listed.output)
    assert (found["txn_id"], found["partition"], found["number"], found["rows"]) == (record.txn_id, 0, 1, 3)
    assert "country" in found["detail"]

    refused = cli.invoke(commands, ["release", record.txn_id])
    assert refused.exit_code == 1
    assert "country" in refused.stderr
    asyncio.run(put_transaction(warehouse, 1, frames(0, 2)))
    released = cli.invoke(commands, ["release", record.txn_id, "--json"])
    assert (released.exit_code, json.loads(released.output)["result"]) == (0, "loaded")
    assert asyncio.run(lines_loaded(warehouse)) == [0, 1]
    assert cli.invoke(commands, ["release", "nonsense"]).exit_code == 1


def test_importing_the_agent_connects_to_nothing() -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('connected')\n"
        "socket.socket.connect = refuse\n"
        "import agents.delivery.agent as d\n"
        "print(sorted(d.app.agents), d.owner.waits_for())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "['agents.delivery.agent.look_sooner'] None\n"), done.stderr
