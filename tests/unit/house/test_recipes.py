"""The recipes of the contributors' guide work as they stand: applied to a copy of the tree, its tests pass."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worlds.recipes import BOT_RULE, COLUMN, FIELD, FLOW, ROOT, Change, next_version, recipe

PRODUCT_FILES = {
    COLUMN: {"app/core/formats/flows.py", "app/core/enrich/row_columns.py"},
    FIELD: {"app/core/formats/flows.py", "app/core/events/fields.py"},
    FLOW: {"app/core/formats/flows.py", "app/core/events/fields.py"},
    BOT_RULE: {"app/core/enrich/bot_agents.txt", "app/core/enrich/crawler_networks.txt"},
}
"""What a recipe touches: the catalogue or the list, and the place of its meaning."""
FAST = (
    "tests/unit/formats", "tests/unit/delivery", "tests/unit/enrich", "tests/unit/events",
    "tests/unit/etl",
    "tests/property/test_step_equals_oracle.py::test_any_grouping_and_any_restart_give_the_oracles_rows",
)  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next_version(tmp_path_factory.mktemp("next"), *PRODUCT_FILES)


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree), "HYPOTHESIS_STORAGE_DIRECTORY": str(tree / ".hypothesis")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("title", PRODUCT_FILES)
def test_a_recipe_touches_two_files_of_the_product(title: str) -> None:
    assert {change.file for change in recipe(title) if not change.file.startswith("tests/")} == PRODUCT_FILES[title]


def test_a_recipe_whose_place_is_gone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\n")
    Change("a.py", "two\n", "three\n").apply(tmp_path)
    assert (tmp_path / "a.py").read_text() == "one\nthree\n"
    with pytest.raises(ValueError, match="0 times"):
        Change("a.py", "two\n", "three\n").apply(tmp_path)
    with pytest.raises(ValueError, match="no recipe"):
        recipe("Add a horse")


@pytest.mark.timeout(400)
def test_the_fast_tests_of_the_next_version_pass(tree: Path) -> None:
    sampled = run(tree, "-m", "tests.corpus.add")
    assert sampled.returncode == 0, sampled.stderr[-3000:]
    assert {Path(line).name for line in sampled.stdout.split()} >= {"file.page_views.v3.json", "rows.video_starts.v1.json"}
    done = run(tree, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *FAST)
    assert done.returncode == 0, done.stdout[-3000:]
    checked = run(tree, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "app")
    assert checked.returncode == 0, checked.stdout


def test_the_new_column_field_and_flow_arrive_in_the_warehouse(tree: Path) -> None:
    """From the bytes that a client posts to rows in the warehouse, all of the production code between in memory."""
    done = run(tree, str(ROOT / "tests" / "worlds" / "whole_path.py"))
    assert done.returncode == 0, done.stderr[-3000:]
    tables = json.loads(done.stdout)
    [view] = tables["page_views"]
    assert (view["event_id"], view["path_depth"], view["page_type"], view["properties"]) == ("pv", 3, "story", None)
    assert [(row["event_id"], row["video_id"], row["properties"]) for row in tables["video_starts"]] == [("vs", "v-1", None)]


def test_this_version_keeps_what_it_does_not_know() -> None:
    done = run(ROOT, str(ROOT / "tests" / "worlds" / "whole_path.py"))
    assert done.returncode == 0, done.stderr[-3000:]
    tables = json.loads(done.stdout)
    [view] = tables["page_views"]
    assert (view["properties"], {"path_depth", "page_type"} & view.keys()) == ('{"page_type":"story"}', set())
    [rejected] = tables["rejected"]
    assert rejected["reason"].startswith("event_type: none of")
    assert "v-1" in rejected["payload"]
