"""Two versions mixed at every stage: none lost, none twice; a wrong order may only wait, the documented one does not."""

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from tests.simulation.history import History
from tests.simulation.rollout import Rollout
from tests.simulation.upgrade import OF_UPGRADES, next_version_folder, play_upgrade
from tests.simulation.versions import ONE_FOR_ALL, Version, lazy_imports, next_version_in, sharing, this_version

SEEDS = (10, 12, 35, 36, 38, 39)


@pytest.fixture(autouse=True)
def silent_logs() -> Iterator[None]:
    """What ends a simulated worker is no error of the test."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(scope="module")
def versions() -> Iterator[tuple[Version, Version]]:
    with next_version_folder() as folder:
        yield this_version(), next_version_in(folder)


class Histories:
    """Each seed's history, played once."""

    def __init__(self, versions: tuple[Version, Version]) -> None:
        self._versions = versions
        self._played: dict[int, History] = {}

    def of(self, seed: int) -> History:
        if seed not in self._played:
            self._played[seed] = play_upgrade(self._versions, seed)
        return self._played[seed]


@pytest.fixture(scope="module")
def histories(versions: tuple[Version, Version]) -> Histories:
    return Histories(versions)


@pytest.mark.xdist_group("upgrade")
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_and_nothing_doubled_while_two_versions_run(histories: Histories, seed: int) -> None:
    broken = histories.of(seed).violations[:3]
    assert not broken, f"make simulate UPGRADE=1 SEED={seed} tells the history: {broken}"


@pytest.mark.xdist_group("upgrade")
def test_the_seeds_have_every_order_and_something_new_at_every_stage(histories: Histories) -> None:
    counts = sum((Counter(histories.of(seed).counts) for seed in SEEDS), Counter())
    assert [name for name in OF_UPGRADES if not counts[name]] == []


@pytest.mark.xdist_group("upgrade")
def test_each_version_has_classes_of_its_own_and_the_interpreter_keeps_this_one(versions: tuple[Version, Version]) -> None:
    older, newer = versions
    assert older["app.errors"] is sys.modules["app.errors"]
    for name in ("app.errors", "app.core.formats.flows", "agents.sink.partition", "tables.store.partition_store"):
        assert newer[name] is not older[name]
    for name in ONE_FOR_ALL:
        assert newer[name] is older[name]
    flows = [set(version["app.core.formats.flows"].BY_NAME) for version in versions]
    assert flows[1] - flows[0] == {"video_starts"}


@pytest.mark.xdist_group("upgrade")
def test_no_role_imports_inside_a_function(versions: tuple[Version, Version]) -> None:
    """It would get this version's module. The ports of real workers do, and the simulation has its own."""
    assert {place.partition(":")[0] for place in lazy_imports(versions[1])} == {"app.shell.ports"}


def test_twins_of_two_versions_share_one_state() -> None:
    class Older:
        def __init__(self) -> None:
            self.count = 0
            self.name = "older"

        def add(self) -> int:
            self.count += 1
            return self.count

    class Newer(Older):
        def add(self) -> int:
            return 10 * super().add()

    older = Older()
    newer: Any = sharing(Newer, older, name="newer")
    assert (newer.add(), older.add(), newer.count) == (10, 2, 2)
    assert (older.name, newer.name) == ("older", "newer")


def test_every_kind_of_order_is_in_store_for_a_tenth_of_the_seeds() -> None:
    plans = [Rollout(SimpleNamespace(seed=seed)) for seed in range(400)]  # type: ignore[arg-type] - only the seed is read
    kinds = Counter((plan.up_in_order, plan.down) for plan in plans)
    assert min(kinds[up, down] for up in (True, False) for down in ("stay", "in order", "wrong")) >= 40
