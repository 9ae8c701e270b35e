"""`make watch`: the alerts over the running local stack, a line for each when it begins to fire and when it ends."""

import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.clock import SystemClock
from app.errors import InstreamError, LocalStackError
from app.local.boards.prometheus import Firing, prometheus
from app.local.stack.control import end_in_order_when_told
from app.local.stack.stack_file import home_of_environment, read_stack
from app.progress import ProgressLines

EVERY_S: Final = 5.0


def told(before: Iterable[Firing], now: Iterable[Firing]) -> list[str]:
    """A line for each alert that fires now and did not, and for each that has ended.

    The same alert with another figure in its summary goes on.
    """
    old, new = _by_labels(before), _by_labels(now)
    begun = [
        f"{one.name}: {one.annotations['summary']} -> {one.annotations['runbook']}"
        for key, one in new.items()
        if key not in old
    ]
    return begun + [f"{one.name} is over" for key, one in old.items() if key not in new]


def _by_labels(alerts: Iterable[Firing]) -> dict[tuple[tuple[str, str], ...], Firing]:
    return {tuple(sorted(one.labels.items())): one for one in alerts if one.state == "firing"}


def watch(say: ProgressLines) -> None:
    """Watch until an interruption.

    Raises:
        LocalStackError: no stack is up, Prometheus is missing, or it has ended.
    """
    stack = read_stack(home_of_environment())
    if stack is None:
        raise LocalStackError("no stack is up: `instream up` starts one")
    with (
        tempfile.TemporaryDirectory(prefix="instream-watch-") as folder,
        prometheus(Path(folder), stack.metrics, EVERY_S) as running,
    ):
        say(f"Prometheus asks {len(stack.metrics)} roles every {EVERY_S:g} s and answers at {running.url}; Ctrl-C ends it")
        before: list[Firing] = []
        clock = SystemClock()
        while True:
            now = running.alerts()
            for line in told(before, now):
                say(f"{datetime.fromtimestamp(clock.now_ms() / 1000, UTC):%H:%M:%S} {line}")
            before = now
            time.sleep(EVERY_S)


def main() -> None:
    """Run the command. Exit codes: 0 after an interruption, 1 with the reason on stderr."""
    end_in_order_when_told()
    say = ProgressLines()
    try:
        watch(say)
    except KeyboardInterrupt:
        pass
    except InstreamError as exc:
        say(f"watch: {exc}")
        sys.exit(1)


if __name__ == "__main__":
    main()
