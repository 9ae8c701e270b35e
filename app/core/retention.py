"""How long each part of the bucket is kept.

The chain (`transactions/`), `repairs/`, `erasures/` and `certificates/` never expire; staged files (`jobdata/`) go with
their transaction (rule S4).
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

DAY_MS: Final = 86_400_000
STAGED: Final = "jobdata/"
"""Below it every object is deleted once its transaction is ready: old versions of them are of no use."""
STAGED_KEPT_DAYS: Final = 7
LEAST_DAYS: Final = 14
"""Nothing is deleted that may still be loaded, joined or sent again: a week of the dedup window, and a week for people."""
REGISTRY_BEHIND_DAYS: Final = 30
"""A registry item outlives its raw file: expiry is lazy on both sides, and a raw file without an item is damage."""
OURS: Final = "instream-"
"""The ids of our lifecycle rules begin with it."""


class Retention(NamedTuple):
    """Days for which things are kept; 0 means for ever."""

    raw_days: int
    data_days: int
    manifests_days: int
    exports_days: int
    log_days: int

    def prefixes(self) -> Mapping[str, int]:
        """Prefix of keys -> days, for the prefixes that expire."""
        kept = {
            "raw/": self.raw_days, "index/": self.raw_days, "data/": self.data_days, "manifests/": self.manifests_days,
            "loads/": self.manifests_days, "registry/": self.exports_days,
        }  # fmt: skip
        return {prefix: days for prefix, days in kept.items() if days}

    def has_expired(self, key: str, stored_ms: int, now_ms: int) -> bool:
        """Whether the bucket's lifecycle may have deleted the object at `key`: if it is missing, it is not lost."""
        days = next((days for prefix, days in self.prefixes().items() if key.startswith(prefix)), 0)
        return days > 0 and now_ms - stored_ms >= days * DAY_MS

    def is_pruned(self, stored_ms: int, now_ms: int) -> bool:
        """Whether delivery may have deleted the row of delivery_log of a transaction that was committed at `stored_ms`.

        A row is deleted by the time of its load, which is later: a row that is missing although this says no is lost
        (rule D6).
        """
        return self.log_days > 0 and now_ms - stored_ms >= self.log_days * DAY_MS

    def registry_days(self) -> int:
        """Days after which the item of a complete batch expires; 0 for never."""
        return self.raw_days + REGISTRY_BEHIND_DAYS if self.raw_days else 0


def lifecycle_rules(retention: Retention, *, versions: bool) -> list[dict[str, Any]]:
    """The rules of the bucket's lifecycle that are ours, as S3 takes them.

    Args:
        retention: days by prefix.
        versions: whether the bucket keeps old versions; those of expired objects go a week later.
    """
    rules = []
    if versions:
        rules.append(_rule("staged", STAGED, {"Expiration": {"ExpiredObjectDeleteMarker": True}}, STAGED_KEPT_DAYS))
    for prefix, days in retention.prefixes().items():
        old = STAGED_KEPT_DAYS if versions else None
        rules.append(_rule(prefix.rstrip("/"), prefix, {"Expiration": {"Days": days}}, old))
    return rules


def merged(existing: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rules of a bucket with ours in place of those that we wrote before: rules of others stay as they are."""
    return [rule for rule in existing if not str(rule.get("ID", "")).startswith(OURS)] + ours


def _rule(name: str, prefix: str, expiration: dict[str, Any], old_versions_days: int | None) -> dict[str, Any]:
    rule = {"ID": f"{OURS}{name}", "Filter": {"Prefix": prefix}, "Status": "Enabled", **expiration}
    if old_versions_days is not None:
        rule["NoncurrentVersionExpiration"] = {"NoncurrentDays": old_versions_days}
    return rule
