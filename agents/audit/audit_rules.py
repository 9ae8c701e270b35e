"""The audit's times, from the settings."""

from app.core.audit.reconcile import AuditRules
from app.settings import Settings


def audit_rules(settings: Settings, grace_s: float | None = None) -> AuditRules:
    """The times of the rules, from the settings. Lines of a batch arrive up to a linger after its first line."""
    grace_ms = round((settings.audit_grace_s if grace_s is None else grace_s) * 1000)
    return AuditRules(grace_ms, settings.join.settle_ms + settings.linger_ms)
