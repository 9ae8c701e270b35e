"""A stack that one command has for itself: the demo, a benchmark, the test rig."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from app.local.stack.control import down, end_in_order_when_told, up
from app.local.stack.life import Home
from app.local.stack.settings import PORT_VARIABLES
from app.local.stack.stack_file import Stack, enter, environment
from app.progress import ProgressLines

COMPRESSED: Final = {
    "INSTREAM_JOIN_WINDOW_S": "6",
    "INSTREAM_JOIN_GRACE_S": "5",
    "INSTREAM_JOIN_REORDER_S": "2",
    "INSTREAM_COMMIT_INTERVAL_S": "3",
    "INSTREAM_DELIVERY_INTERVAL_S": "1",
}
"""A join window of seconds instead of 90, so that a demo takes a minute."""


@contextmanager
def own_stack(
    settings: dict[str, str], say: ProgressLines, prepare: Callable[[Home], None] = lambda _: None
) -> Iterator[Stack]:
    """A stack in a folder of its own, on free ports; it is removed after the block.

    Within the block this process has the stack's environment. If the block fails, the stack's logs are kept and named.

    Args:
        settings: variables of the stack's environment.
        say: prints what happens.
        prepare: puts files into the folder before the stack starts.
    """
    end_in_order_when_told()
    home = Home(Path(tempfile.mkdtemp(prefix="instream-demo-")))
    has_failed = False
    with environment({"INSTREAM_HOME": str(home.path)} | dict.fromkeys(PORT_VARIABLES.values(), "0") | settings):
        try:
            prepare(home)
            stack = up(home, say)
            enter(home)
            yield stack
        except Exception:  # an interruption is no failure: its logs are not needed
            has_failed = True
            raise
        finally:
            if home.is_held():
                say("stopping the stack")
            down(home, lambda _: None)
            _clear(home, say, keep_logs=has_failed and home.logs.exists())


def _clear(home: Home, say: ProgressLines, *, keep_logs: bool) -> None:
    if not keep_logs:
        shutil.rmtree(home.path)
        return
    shutil.rmtree(home.data, ignore_errors=True)
    say(f"logs are kept in {home.path}")
