"""What every part of one deep audit shares."""

from collections.abc import Iterable
from typing import NamedTuple

from agents.audit.deep.ports import DeepPorts
from agents.audit.deep.report import DeepReport, Span
from app.core.audit.differences import Difference, DifferenceKind
from app.settings import Settings

_LOST: frozenset[DifferenceKind] = frozenset({
    DifferenceKind.RAW_LOST, DifferenceKind.FILE_LOST, DifferenceKind.MANIFEST_LOST, DifferenceKind.READY_LOST,
})  # fmt: skip
"""Objects that the bucket's lifecycle may delete."""


class Look(NamedTuple):
    """One deep audit."""

    ports: DeepPorts
    settings: Settings
    span: Span
    report: DeepReport

    def kept(self, differences: Iterable[Difference], stored_ms: int) -> list[Difference]:
        """The differences without objects that have expired: `stored_ms` is the time from which they were kept."""
        now_ms, retention = self.ports.clock.now_ms(), self.settings.retention
        return [
            one for one in differences
            if one.kind not in _LOST or not retention.has_expired(one.key, stored_ms, now_ms)
        ]  # fmt: skip
