"""Items of the registry that are no batch: audit, wait and replay name each of them, and skip it."""

import copy
from collections.abc import Collection, Mapping
from typing import Any, Final

from agents.audit.auditor import Auditor
from agents.audit.coverage import await_coverage
from agents.audit.ports import open_ports
from agents.audit.replay import Chosen, replay
from app.settings import Settings
from app.shell.ports import Ports
from tests.rig.chaos.plan import Fault
from tests.rig.chaos.report import Journal
from tests.rig.chaos.services import Services
from tests.rig.invariants.violation import Violation, listed

_PLAIN: Final[dict[str, Any]] = {
    "version": {"N": "1"}, "epoch": {"N": "1"}, "line_count": {"N": "2"}, "byte_count": {"N": "9"},
    "sha256": {"S": "ab" * 32}, "raw_key": {"S": "raw/of-nobody"},
    "blocks": {"L": [{"L": [{"N": n} for n in ("0", "0", "2", "0", "9")]}]},
    "state": {"S": "open"}, "attempts": {"N": "0"}, "next_attempt_at": {"N": "0"},
}  # fmt: skip
ABSURD: Final[tuple[dict[str, Any], ...]] = (
    {"sha256": {"S": ""}}, {"sha256": {"BOOL": True}}, {"line_count": {"N": "-1"}}, {"line_count": {"N": "1E+40"}},
    {"blocks": {"L": []}}, {"blocks": {"S": "none"}}, {"state": {"S": "half open"}}, {"raw_key": {"NULL": True}},
    {"version": {"S": "one"}}, {"byte_count": {"N": "10"}},
)  # fmt: skip
"""What each item has instead; the batch_id is no UUID either."""


class Items:
    """Absurd items of one stack's registry. They stay until the faults are over."""

    def __init__(self, settings: Settings, services: Services, journal: Journal) -> None:
        self._settings = settings
        self._services = services
        self._journal = journal
        self._put: list[str] = []

    async def put(self, fault: Fault) -> None:
        """Put one among the open batches."""
        batch_id = f"no-batch-{fault.chance}"
        item = copy.deepcopy(_PLAIN) | ABSURD[fault.chance % len(ABSURD)]
        keys = {"batch_id": {"S": batch_id}, "open_epoch": {"N": str(self._settings.epoch)}, "received_at": {"N": "1"}}
        await self._services.put_item(item | keys)
        self._put.append(batch_id)
        self._journal.note(fault.kind, "dynamodb", batch_id)

    async def judge(self) -> list[Violation]:
        """Ask the three commands for the items, then delete the items, as an operator does."""
        async with open_ports(Ports(self._settings)) as ports:
            round_ = await Auditor(ports, self._settings).round(None)
            again = await replay(ports, self._settings, Chosen(batch_ids=self._put))
        waited = await await_coverage(self._settings, 0, lambda *_: None)
        told = {
            "audit": (round_.unreadable, len(round_.unreadable)), "replay": (again.unreadable, len(again.unreadable)),
            "wait": (waited.named.get("unreadable", []), waited.unreadable),
        }  # fmt: skip
        for batch_id in self._put:
            await self._services.delete_item(batch_id)
        return judge_named(self._put, told)


def judge_named(put: Collection[str], told: Mapping[str, tuple[Collection[str], int]]) -> list[Violation]:
    """A1: each command counts every item that is no batch, and names it.

    Args:
        put: ids of the items.
        told: command -> its reasons, and its count. `wait` shows a few reasons, and counts all.
    """
    violations = []
    for command, (reasons, count) in told.items():
        named = sum(any(batch_id in reason for reason in reasons) for batch_id in put)
        if count != len(put) or named != len(reasons) or (put and not reasons):
            text = f"{command} counts {count} of {len(put)} items that are no batch, and names {named}: {listed(reasons)}"
            violations.append(Violation("A1", text))
    return violations
