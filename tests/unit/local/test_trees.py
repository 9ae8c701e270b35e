"""Which code tree a process of the stack runs, and that Python really takes the code from there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from app.clock import SystemClock
from app.errors import LocalStackError
from app.local.stack.keeper import Keeper, ProcessSpec
from app.local.stack.spare import SPARE, Spare
from app.local.stack.trees import FILE, Trees
from app.telemetry import ops_routes
from tests.worlds.recipes import ROOT
from tests.worlds.waiting import PAUSE_S, until

SAY_TREE = "import os, time; print(os.environ.get('PYTHONPATH', 'own'), flush=True); time.sleep(60)"


def tree(folder: Path) -> Path:
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "__init__.py").touch()
    return folder


def test_a_process_without_an_entry_runs_the_supervisors_code(tmp_path: Path) -> None:
    trees = Trees(tmp_path)
    assert trees.variables("etl") == {}
    trees.replace({"sink": tree(tmp_path / "other")})
    assert trees.variables("etl") == {}
    assert trees.variables("sink") == {"PYTHONPATH": str(tmp_path / "other")}


def test_the_file_is_read_anew_at_every_question(tmp_path: Path) -> None:
    trees, first, second = Trees(tmp_path), tree(tmp_path / "1"), tree(tmp_path / "2")
    trees.replace({"etl": first, "sink": first})
    trees.replace(trees.read() | {"etl": second})
    assert Trees(tmp_path).read() == {"etl": second, "sink": first}


def test_a_folder_without_code_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    trees = Trees(tmp_path)
    trees.replace({"etl": tree(tmp_path / "1")})
    with pytest.raises(LocalStackError, match="no code tree for sink"):
        trees.replace({"etl": tmp_path / "1", "sink": tmp_path / "empty"})
    assert trees.read() == {"etl": tmp_path / "1"}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.raises(LocalStackError, match=FILE):
        Trees(tmp_path).variables("etl")


def test_python_takes_the_code_of_the_tree_and_not_that_which_is_installed(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "app", copy / "app", ignore=shutil.ignore_patterns("__pycache__"))
    trees = Trees(tmp_path)
    trees.replace({"etl": copy})
    done = subprocess.run(
        [sys.executable, "-c", "import app.telemetry; print(app.telemetry.__file__)"], cwd=tmp_path, capture_output=True,
        text=True, check=True, env=os.environ | trees.variables("etl"), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.stdout.strip() == str(copy / "app" / "telemetry.py")


async def test_the_page_of_metrics_names_the_folder_of_the_code() -> None:
    application = web.Application()
    application.add_routes(ops_routes(lambda: None))
    async with TestClient(TestServer(application)) as client:
        text = await (await client.get("/metrics")).text()
    assert f'instream_code_info{{folder="{ROOT}",version="' in text


async def test_a_process_starts_again_from_the_tree_that_the_file_names_then(tmp_path: Path) -> None:
    trees, other = Trees(tmp_path), tree(tmp_path / "other")
    spec = ProcessSpec(
        name="etl", command=[sys.executable, "-c", SAY_TREE], environment={}, folder=tmp_path, log=tmp_path / "log",
        patience_s=1,
    )  # fmt: skip
    keeper = Keeper(spec, SystemClock(), lambda: None, lambda _: None)
    keeper.variables = lambda: trees.variables("etl")
    await keeper.start()
    try:
        await until(lambda: spec.log.read_text() == "own\n", PAUSE_S)
        assert keeper.is_current
        trees.replace({"etl": other})
        assert not keeper.is_current
        assert keeper.pid is not None
        os.kill(keeper.pid, 9)
        await until(lambda: spec.log.read_text() == f"own\n{other}\n", PAUSE_S)
        assert keeper.is_current
    finally:
        await keeper.stop()


async def test_a_spare_of_the_code_of_before_does_not_take_over(tmp_path: Path) -> None:
    trees, other = Trees(tmp_path), tree(tmp_path / "other")
    spec = ProcessSpec(
        name=SPARE, command=[sys.executable, "-c", SAY_TREE], environment={}, folder=tmp_path, log=tmp_path / "log",
        patience_s=1,
    )  # fmt: skip
    spare = Spare(spec, SystemClock(), lambda: None, settle_s=0)
    spare.variables = lambda: trees.variables("collector")
    spare.start()
    try:
        await until(lambda: spec.log.exists() and spec.log.read_text() == "own\n", PAUSE_S)
        trees.replace({"collector": other})
        assert spare.take() is None
        await until(lambda: spec.log.read_text() == f"own\n{other}\n", PAUSE_S)
        process = spare.take()
        assert process is not None
        process.kill()
        await process.wait()
    finally:
        await spare.stop()
