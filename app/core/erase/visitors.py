"""Which stored lines are a visitor's: those that name the visitor, and those of a page view that names the visitor.

A page view id is one load of a page in one browser. So an event that names no visitor, and has the page view id of one that
does, is of the same person: an engagement without `visitor_id`, say, whose fields are in the page view's row.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from app.core.formats import tombstone

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:@-]+")
"""Ids that JSON writes as they are: a text without them has no line that names them."""
_NAMED: Final = re.compile(r'"(visitor_id|page_view_id)"\s*:\s*(?:"((?:[^"\\]|\\.)*)|([^\s,}\]"]+))')
_MALFORMED: Final = b'"malformed"'
_decoder: Final = msgspec.json.Decoder(dict[str, Any])


class Sought(NamedTuple):
    """The ids by which lines are found."""

    visitor_ids: frozenset[str]
    page_view_ids: frozenset[str] = frozenset()

    def names(self, visitor_id: object, page_view_id: object) -> bool:
        """Whether one of the two is sought."""
        return visitor_id in self.visitor_ids or page_view_id in self.page_view_ids


class FoundLine(NamedTuple):
    """A line that is the visitor's."""

    line: int
    page_view_id: str | None


def lines_in(text: bytes, first_line: int, sought: Sought) -> Iterator[FoundLine]:
    """The visitor's lines in the NDJSON text of a block, whose first line has the number `first_line`."""
    needles = _needles(sought)
    if needles and not any(needle in text for needle in needles):
        return
    for number, line in enumerate(text.split(b"\n")[:-1], first_line):
        if needles and not any(needle in line for needle in needles):
            continue
        try:
            fields = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            fields = {"malformed": "", "payload": line.decode(errors="replace")}
        page_view_id = fields.get("page_view_id")
        if sought.names(fields.get("visitor_id"), page_view_id) or is_named_in(_payload(fields), sought):
            yield FoundLine(number, page_view_id if isinstance(page_view_id, str) else None)


def is_named_in(payload: str, sought: Sought) -> bool:
    """Whether a text that may be no JSON, or may be cut, has a field `visitor_id` or `page_view_id` with a sought value."""
    for name, quoted, bare in _NAMED.findall(payload):
        value = _unescaped(quoted) if quoted else bare
        if sought.names(*((value, None) if name == "visitor_id" else (None, value))):
            return True
    return False


def _payload(fields: dict[str, Any]) -> str:
    """The text of a malformed line; nothing of an event, whose fields tell all, and of a tombstone."""
    reason, payload = fields.get("malformed"), fields.get("payload")
    return payload if reason not in {None, tombstone.REASON} and isinstance(payload, str) else ""


def _needles(sought: Sought) -> list[bytes]:
    """Texts of which each line that names an id has one; none if that cannot be said of every id.

    A malformed line may write any character as an escape.
    """
    ids: Iterable[str] = (*sought.visitor_ids, *sought.page_view_ids)
    return [_MALFORMED, *(each.encode() for each in ids)] if all(map(_PLAIN.fullmatch, ids)) else []


def _unescaped(text: str) -> str:
    try:
        return str(msgspec.json.decode(f'"{text}"'))
    except msgspec.DecodeError:
        return text
