"""The kind of each line, from its cells alone: as `app.core.etl.classify` decides it from columns (rules J1, J4, R7)."""

from typing import Final, NamedTuple

import numpy as np
from xxhash import xxh3_128_intdigest

from app.core.enrich.bot_agents import EMPTY_USER_AGENT
from app.core.enrich.bots import WEBDRIVER
from app.core.enrich.enrich import CACHED_ADDRESSES, CACHED_AGENTS, Agent, Enricher, Origin
from app.core.etl.cells import Cells
from app.core.etl.classify import CODE_OF_TYPE, LineKind, Rejection
from app.core.etl.field_table import FIELD
from app.core.etl.text_facts import LineFacts, TextFacts
from app.core.events.fields import EVENT_TYPES
from app.core.formats import tombstone
from app.kernels.cells import Ints, Words
from app.kernels.digests import digest_texts

_AGENT_BYTES: Final = 16 * 1024 * 1024
_ADDRESS_BYTES: Final = 8 * 1024 * 1024
_SERVER: Final = b"server"
_CODES: Final[Ints] = np.array([CODE_OF_TYPE[event_type] for event_type in (*EVENT_TYPES, None)], np.int64)
"""For each number of an event type its code; the last one is for number -1."""
_LOW: Final = 2**64 - 1


class ClassifiedCells(NamedTuple):
    """The kinds of n lines, from each line alone; duplicates are found later."""

    codes: Ints
    """int64[n], as `ClassifiedLines.codes`."""
    agents: LineFacts[Agent]
    origins: LineFacts[Origin]
    rejections: dict[int, Rejection]
    """The rejections of bots and malformed lines, by their places among these lines."""
    ids: Words
    """uint64[n, 2]: the digest of each line's event id, (high, low); zeros if it has none."""
    views: Words
    """uint64[n, 2]: the digest of each line's page view id; zeros if it has none."""


class CellClassifier:
    """Tells malformed lines and bots from events; remembers user agents and addresses. For one thread at a time."""

    def __init__(self, enricher: Enricher) -> None:
        self._agents = TextFacts(enricher.agent, CACHED_AGENTS, _AGENT_BYTES)
        self._origins = TextFacts(enricher.origin, CACHED_ADDRESSES, _ADDRESS_BYTES)

    def classify(self, cells: Cells) -> ClassifiedCells:
        """The kinds of the lines of a step."""
        agents, origins = self._agents.of(cells, FIELD["user_agent"]), self._origins.of(cells, FIELD["ip"])
        found = ClassifiedCells(
            _CODES[cells.types],
            agents,
            origins,
            {},
            _digests(cells, FIELD["event_id"]),
            _digests(cells, FIELD["page_view_id"]),
        )
        _reject_bots(cells, found)
        _reject_malformed(cells, found)
        return found


def _reject_bots(cells: Cells, found: ClassifiedCells) -> None:
    """The first rule that matches names the bot: webdriver, the user agent, the network."""
    agents, origins = found.agents, found.origins
    driven = cells.has("webdriver") & (cells.rec[:, FIELD["webdriver"]] == 1)
    suspects = driven | agents.is_bot[agents.numbers] | origins.is_bot[origins.numbers]
    for n in np.flatnonzero(suspects).tolist():
        agent, origin = int(agents.numbers[n]), int(origins.numbers[n])
        agent_rule = agents.facts[agent].bot_rule
        if agent_rule == EMPTY_USER_AGENT and cells.value(n, "key_kind") == _SERVER:
            agent_rule = None  # the publisher's program does not tell its visitor's agent
        rule = WEBDRIVER if driven[n] else agent_rule or origins.facts[origin].bot_rule
        if rule is None:
            continue
        found.codes[n] = LineKind.BOT
        found.rejections[n] = Rejection(rule, agents.texts[agent], origins.texts[origin], None, _event_type(cells, n))


def _reject_malformed(cells: Cells, found: ClassifiedCells) -> None:
    agents, origins = found.agents, found.origins
    for n in np.flatnonzero(cells.has("malformed")).tolist():
        reason = (cells.value(n, "malformed") or b"").decode()
        if reason == tombstone.REASON:
            found.codes[n] = LineKind.ERASED
            found.rejections.pop(n, None)
        else:
            found.codes[n] = LineKind.MALFORMED
            payload = (cells.value(n, "payload") or b"").decode()
            user_agent, ip = agents.texts[agents.numbers[n]], origins.texts[origins.numbers[n]]
            found.rejections[n] = Rejection(reason, user_agent, ip, payload, _event_type(cells, n))


def _event_type(cells: Cells, line: int) -> str | None:
    number = int(cells.types[line])
    return None if number < 0 else EVENT_TYPES[number]


def _digests(cells: Cells, field: int) -> Words:
    digests, others = np.empty((len(cells.rec), 2), np.uint64), np.empty(len(cells.rec), np.int64)
    count = digest_texts(cells.arena, cells.rec, cells.present, field, digests, others)
    for line in others[:count].tolist():  # ids that the collector never stores
        digest = xxh3_128_intdigest(cells.text(int(cells.rec[line, field])))
        digests[line] = digest >> 64, digest & _LOW
    return digests
