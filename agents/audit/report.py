"""The findings of one round of the audit, and their metrics and log line."""

from typing import Final

import msgspec
import structlog
from prometheus_client import Gauge

log = structlog.get_logger(__name__)

NAMED: Final = 20
"""A report or a log line names at most so many batches and reasons."""
OPEN = Gauge("instream_audit_open_batches", "Batches of the last round, by finding", ["found"])

OLDEST = Gauge(
    "instream_oldest_uncovered_batch_seconds",
    "Age of the oldest batch that the last round judged and did not complete; else 0",
)


class AuditReport(msgspec.Struct, kw_only=True):
    """Findings and actions of one round. Counts are batches."""

    judged: int = 0
    completed: int = 0
    waiting: int = 0
    replayed: int = 0
    refused: int = 0
    """A replay was due and Kinesis did not take all of it: this is no attempt, and the next round tries again."""
    held: int = 0
    lost: int = 0
    excess: int = 0
    damaged: int = 0
    """The raw file is missing, or the registry has another digest."""
    dead_lettered: int = 0
    """Judged batches that lack lines because the ETL set aside blocks that it could not read; they are replayed like any
    other."""
    other_epoch: int = 0
    """Refused batches: they belong to another epoch."""
    unreadable: list[str] = []
    """Items of the registry that are no batch, each with its reason; they are skipped."""
    waits_for: list[str] = []
    """The reasons why batches wait, and every service that did not answer."""
    named: dict[str, list[str]] = {}
    """Finding (held, lost, excess, damaged, dead_lettered, other_epoch) -> batch ids, at most 20."""
    held_by: list[str] = []
    """Quarantined transactions that hold batches."""
    oldest_uncovered_s: float = 0.0
    """Age of the oldest judged batch that is not complete; 0 if there is none."""
    upgrade: str = ""
    """Data of a newer version: its batches cannot be judged before the audit is upgraded (rule E10)."""

    @property
    def still_open(self) -> int:
        """Batches that are not complete after the round."""
        return self.judged + self.other_epoch - self.completed

    @property
    def alarms(self) -> int:
        """Batches that a replay cannot repair."""
        return self.lost + self.excess + self.damaged + len(self.unreadable)

    def note_age(self, age_s: float) -> None:
        """Note the age of a batch that is not complete."""
        self.oldest_uncovered_s = max(self.oldest_uncovered_s, round(age_s, 1))

    def name(self, finding: str, batch_id: str) -> None:
        """Note a batch by its id."""
        batch_ids = self.named.setdefault(finding, [])
        if len(batch_ids) < NAMED:
            batch_ids.append(batch_id)

    def wait_for(self, reason: str) -> None:
        """Note a reason once."""
        if reason not in self.waits_for and len(self.waits_for) < NAMED:
            self.waits_for.append(reason)


def publish(report: AuditReport) -> None:
    """Show a round in metrics and, if it found anything, in the log."""
    counts = {name: value for name, value in msgspec.structs.asdict(report).items() if isinstance(value, int)}
    for found, count in counts.items():
        OPEN.labels(found).set(count)
    OLDEST.set(report.oldest_uncovered_s)
    OPEN.labels("unreadable").set(len(report.unreadable))
    if report.judged or report.waits_for or report.other_epoch or report.unreadable:
        told = {name: count for name, count in counts.items() if count}
        log.info(
            "audit round",
            **told,
            waits_for=report.waits_for,
            named=report.named,
            held_by=report.held_by,
            unreadable=report.unreadable[:NAMED],
        )
