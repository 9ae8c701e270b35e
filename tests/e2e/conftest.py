"""One stack for every end-to-end test of a session, in a folder of its own, on free ports, with compressed times."""

from collections.abc import Generator

import pytest

from tests.e2e.live_stack import COMPRESSED, LiveStack


@pytest.fixture(scope="session")
def shared_stack(tmp_path_factory):
    """The stack, up until the session ends."""
    live = LiveStack(tmp_path_factory.mktemp("stack") / "home", COMPRESSED)
    live.up(INSTREAM_CRASH_PLAN=str(live.crash_plan))  # so that a call without a crash point fails here
    yield live
    live.down()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure comes what the stack's logs say: its folder is gone where tests run elsewhere."""
    report = yield
    live = getattr(item, "funcargs", {}).get("shared_stack")
    if report.failed and live is not None:
        report.sections.append(("the stack's logs", live.story()))
    return report


@pytest.fixture
def stack(shared_stack, monkeypatch):
    """The shared stack, with this process's environment leading to it."""
    for name, value in shared_stack.stack.environment.items():
        monkeypatch.setenv(name, value)
    return shared_stack
