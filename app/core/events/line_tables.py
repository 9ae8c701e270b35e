"""The catalogue of fields as the tables of `app.kernels.client_lines`: a new field needs no new kernel."""

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from app.core.events.canonical_json import encode
from app.core.events.fields import (
    BOUNDS,
    EVENT_TYPES,
    FIELDS,
    KNOWN_TO,
    OF_SERVERS,
    TYPED_FIELDS,
    WITHOUT_COLUMN,
    Check,
    Field,
    KeyKind,
)
from app.core.events.parse import MAX_LINE_BYTES, MAX_USER_AGENT_BYTES
from app.core.formats.flows import MAX_PROPERTIES_BYTES, ColumnKind
from app.kernels import client_lines as lines
from app.kernels import field_rules as rules
from app.kernels.cells import PAD, Bytes, Ints
from app.kernels.json_text import signature

_RULES: Final[dict[Check, tuple[int, int, int]]] = {
    FIELDS["event_id"].check: (rules.NAME, 0, 64),
    FIELDS["event_type"].check: (rules.KIND, 0, 0),
    FIELDS["currency"].check: (rules.LETTERS, 0, 3),
    FIELDS["webdriver"].check: (rules.BOOLEAN, 0, 0),
    FIELDS["properties"].check: (rules.OBJECT, 0, 0),
    OF_SERVERS["ip"].check: (rules.ADDRESS, 0, 0),
    OF_SERVERS["user_agent"].check: (rules.AGENT, 0, MAX_USER_AGENT_BYTES),
}
"""Rule, LOW and HIGH of the checks that are made once; those of the others are in `BOUNDS`."""
_TIME: Final = "occurred_at"
_KEY, _OTHER_KEY = "page_view_id", "event_id"


class LineTables(NamedTuple):
    """The tables for the lines of one kind of key; see `app.kernels.client_lines`."""

    names: Bytes
    fields: Ints
    slots: Ints
    kinds: Ints
    layout: Ints
    """Without TAIL_HEAD and TAIL_SIZE, which every request has its own of."""


@lru_cache
def line_tables(key_kind: KeyKind) -> LineTables:
    """The tables for the lines that come with a key of this kind."""
    known = {**FIELDS, **OF_SERVERS}
    if len(known) > lines.MOST_FIELDS:
        raise ValueError(f"{len(known)} fields: a mask has {lines.MOST_FIELDS} bits")
    labels = [b",%s:" % encode(name) for name in known]
    heads = [b'{"event_type":%s' % encode(name) for name in EVENT_TYPES]
    texts = [*labels, *heads, b',"properties":"{']
    places = np.cumsum([0, *map(len, texts)]).tolist()
    number = {name: n for n, name in enumerate(known)}
    fields = np.zeros((len(known), 6), np.int64)
    for n, (name, field) in enumerate(known.items()):
        also = name in WITHOUT_COLUMN
        rule = _rule_of(name, field) if name in KNOWN_TO[key_kind] else (rules.DROPPED, 0, 0)
        if also and rule[0] != rules.BOOLEAN:
            rule = (rules.OTHER, 0, 0)
        fields[n] = (places[n], len(labels[n]), *rule, also)
    kinds = np.zeros((len(EVENT_TYPES), 6), np.int64)
    for n, name in enumerate(EVENT_TYPES):
        typed = TYPED_FIELDS[name]
        kinds[n] = (
            places[len(known) + n], len(heads[n]), len(encode(name)),
            sum(1 << number[field.name] for field in typed if field.is_required),
            sum(1 << number[field.name] for field in typed),
            sum(1 << number[field] for field in OF_SERVERS),
        )  # fmt: skip
    layout = np.zeros(9, np.int64)
    layout[lines.PROPERTIES_AT], layout[lines.PROPERTIES_SIZE] = places[-2], len(texts[-1])
    layout[lines.MOST_LINE], layout[lines.MOST_PROPERTIES] = MAX_LINE_BYTES, MAX_PROPERTIES_BYTES
    layout[lines.KEY], layout[lines.OTHER_KEY] = number[_KEY], number[_OTHER_KEY]
    names = np.frombuffer(b"".join(texts) + bytes(PAD), np.uint8).copy()
    return LineTables(names, fields, _slots(names, fields), kinds, layout)


def _rule_of(name: str, field: Field) -> tuple[int, int, int]:
    """The rule of a field with its LOW and HIGH."""
    if field.check in _RULES:
        return _RULES[field.check]
    if field.check not in BOUNDS:
        return rules.OTHER, 0, 0
    low, high = BOUNDS[field.check]
    if field.kind is ColumnKind.STRING:
        return rules.TEXT, low, high
    return rules.TIME if name == _TIME else rules.INTEGER, low, high


def _slots(names: Bytes, fields: Ints) -> Ints:
    """The fields in their slots, by the signatures of their names."""
    slots = np.full(lines.SLOTS, lines.FREE, np.int64)
    for n in range(len(fields)):
        name_at, size = fields[n, lines.LABEL_AT] + 2, fields[n, lines.LABEL_SIZE] - 4
        slot = lines.slot_of(signature(names, name_at, size))
        while slots[slot] != lines.FREE:
            slot = (slot + 1) % lines.SLOTS
        slots[slot] = n
    return slots
