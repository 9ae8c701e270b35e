"""Tables over every member of an enum, checked when their module is imported."""

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

Member = TypeVar("Member", bound=Enum)
Entry = TypeVar("Entry")


def whole_table(members: type[Member], table: Mapping[Member, Entry]) -> Mapping[Member, Entry]:
    """`table`, which must have an entry for every member: a new member fails at import and not at its first use.

    Raises:
        ValueError: a member has no entry.
    """
    missing = [member.name for member in members if member not in table]
    if missing:
        raise ValueError(f"table over {members.__name__} has no entry for {', '.join(missing)}")
    return table
