"""Fixtures that tests of several folders share."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator

import botocore.loaders
import pytest
import structlog
from hypothesis import HealthCheck, settings

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # as in the workers (app.apps), before polars is imported
from app.gc_tuning import collect_seldom
from tests.worlds.recipes import share_kernels
from tests.worlds.waiting import LoopTime
from tests.worlds.warehouse import kept_warehouse, warehouse, warehouse_stack

__all__ = ["few_collections", "kept_warehouse", "quick_aws_clients", "quiet_logs", "warehouse", "warehouse_stack"]

share_kernels()

# An example has no deadline: its time depends on the machine.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

OPERATORS = {
    "test_audit_deep.py", "test_rebuild.py", "test_repair.py", "test_repair_log.py", "test_runbooks.py", "test_schema.py",
    "test_status.py", "test_trace.py",
}  # fmt: skip
"""Modules of what operators do: they take about as long as the other modules on a shared stack together."""
STACK_HANGS_S = 1800
"""The setting `timeout` of a test on the stack, in which several waits of `HANGS_S` may follow each other."""


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """If several processes run tests, the tests that share something expensive to start stay in one process.

    The largest groups go first: the tests on a shared stack in two processes, each with a stack of its own, those that start
    brokers one after the other in a third; everything else fills the gaps. Tests on PostgreSQL behind the stand-in need the
    embedded stack like tests on Kafka, and have its mark too.
    """
    shared = {"shared_stack": "stack", "warehouse_stack": "warehouse", "aws_stand_in": "aws"}
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        group = next((name for fixture, name in shared.items() if fixture in fixtures), None)
        if group == "warehouse":
            item.add_marker("stack")
        if group == "stack" and item.path.name in OPERATORS:
            group = "stack of operators"
        if item.get_closest_marker("stack"):
            item.add_marker(pytest.mark.timeout(STACK_HANGS_S))
        if group is None and item.get_closest_marker("stack") and item.path.parent.name != "e2e":
            group = "broker"
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their parameter: their content may differ between two processes, for example gzip's time."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture
async def loop_time() -> AsyncIterator[LoopTime]:
    """The time of the test's event loop; it stands still."""
    standing = LoopTime(asyncio.get_running_loop())
    yield standing
    standing.go_on()


@pytest.fixture(scope="session", autouse=True)
def few_collections() -> None:
    """Collect garbage as seldom as the workers do."""
    collect_seldom()


@pytest.fixture(scope="session", autouse=True)
def quiet_logs() -> Iterator[None]:
    """Only errors are rendered: property tests would spend their time on thousands of unread lines."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def quick_aws_clients() -> Iterator[None]:
    """All boto3 sessions read the services' descriptions once, and try again (as often as ever) without a pause."""
    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", lambda *_: loader)
        patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
        yield
