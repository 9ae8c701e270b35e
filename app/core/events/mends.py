"""How a value that breaks its field's rule is read all the same (rule J6).

A client sends `performance.now()` (90123.4) as a time, 103 as a percentage, 17 as an id. Each of these says what was meant.
A mend answers with the value that is stored; the field's check judges that value again.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, NamedTuple

from app.core.events.canonical_json import Number, cut_text


class Mended(NamedTuple):
    """A value that can be read."""

    value: Any
    fault: str | None = None
    """The rule that the value broke, for column `invalid_fields`; None if the client cannot have meant another value."""


Mend = Callable[[object], Mended | None]
"""The value that is stored for one that breaks its rule; None if nobody can tell."""

_SECONDS: Final = (10**9, 10**10)
"""A number of ten digits: seconds from 2001 to 2286. As milliseconds it would be a day of 1970."""
_ISO: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s?(?:[Zz]|([+-])(\d\d):?(\d\d)?)?)?", re.ASCII
)
"""A date of ISO 8601, or a date and a time with or without seconds, fraction and zone."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def whole_number(value: object) -> Mended | None:
    """5.0 and 1e3 are integers."""
    return Mended(int(value)) if isinstance(value, float) and value.is_integer() else None


def rounded(value: object) -> Mended | None:
    """The nearest integer; a half is rounded up, as `Math.round` does."""
    return Mended(math.floor(value + 0.5)) if isinstance(value, float) else None


def percentage(value: object) -> Mended | None:
    """The nearest integer, and 100 for more than 100: a page that is pulled over its end reports that."""
    if isinstance(value, Number):
        return None if value.text.startswith("-") else Mended(100)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Mended(min(math.floor(value + 0.5) if isinstance(value, float) else value, 100))


def number_as_text(value: object) -> Mended | None:
    """An id that was sent as a number: its digits."""
    if isinstance(value, Number):
        return Mended(value.text) if value.is_integer else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return Mended(str(value)) if isinstance(value, int) and not isinstance(value, bool) else None


def cut_at(max_bytes: int) -> Mend:
    """The longest start of a text that has `max_bytes` of UTF-8; cut at a character."""

    def mend(value: object) -> Mended | None:
        return Mended(cut_text(value, max_bytes), f"longer than {max_bytes} bytes") if isinstance(value, str) else None

    return mend


def moment(value: object) -> Mended | None:
    """Milliseconds since the epoch: from a fraction of them, from seconds (ten digits), or from a text of ISO 8601.

    A text without a zone is UTC.
    """
    if isinstance(value, str):
        at_ms = _iso_ms(value)
        return None if at_ms is None else Mended(at_ms, "ISO 8601, not milliseconds")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if _SECONDS[0] <= value < _SECONDS[1]:
        return Mended(math.floor(value * 1000 + 0.5), "seconds, not milliseconds")
    return rounded(value)


def _iso_ms(text: str) -> int | None:
    match = _ISO.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[n] or 0) for n in range(1, 7))
    micros = int((match[7] or "").ljust(6, "0")[:6])
    zone = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
    try:
        at = datetime(
            year, month, day, hour, minute, second, micros, timezone(-zone if match[8] == "-" else zone)
        )  # fmt: skip
        return math.floor((at - _EPOCH) / timedelta(milliseconds=1) + 0.5)
    except (ValueError, OverflowError):
        return None  # month 13, or a zone of 99 hours
