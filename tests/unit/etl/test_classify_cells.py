"""Classification and dedup on cells decide what they decide on columns."""

import random
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app.core.enrich.bots import CrawlerNetworks, parse_networks
from app.core.enrich.enrich import Agent, Enricher, Location
from app.core.etl.cells import CellReader
from app.core.etl.classify import LineKind, classify_lines
from app.core.etl.classify_cells import CellClassifier, ClassifiedCells
from app.core.etl.decode import Decoded, read_blocks
from app.core.etl.dedup import ValidLines, find_duplicates
from app.core.etl.dedup_digests import ValidDigests, find_duplicate_digests
from app.core.etl.field_table import FIELD
from app.core.etl.text_facts import LineFacts, TextFacts
from app.core.formats.source import AcceptedBlock
from app.core.formats.tombstone import tombstone
from app.core.state.encoding import digest_of, pack_time
from app.core.state.tables import MemoryState
from app.kernels.cells import Words
from app.kernels.digests import pack_digests
from tests.builders.cells import block_of
from tests.builders.source_log import BASE_MS, CHROME, GOOGLEBOT, IP, IPHONE, as_line, enricher, event, malformed

NETWORKS = CrawlerNetworks(parse_networks("66.249.64.0/19 googlebot"))
CRAWLER_IP = "66.249.66.1"


def place_of(ip: str) -> Location:
    return Location("DE", None, f"City of {ip}"[:20]) if ip.startswith("203") else Location()


ENRICHER = enricher(networks=NETWORKS)
PLACED = enricher(networks=NETWORKS, location_of=place_of)


def any_line(chance: random.Random) -> bytes:
    agent = chance.choice([CHROME, CHROME, IPHONE, GOOGLEBOT, "", "   ", None, "x" * 900, "ü"])
    fields: dict[str, Any] = {
        "user_agent": agent, "ip": chance.choice([IP, IP, CRAWLER_IP, "no address", "", None, "2001:db8::1"]),
        "key_kind": chance.choice(["server", "server", "browser", None]),
        "webdriver": chance.choice([None, None, True, False]),
    }  # fmt: skip
    name = chance.choice(["e1", "e2", "e3", "e" * chance.randrange(1, 66), f"e{chance.random()}"])
    types = ["page_view", "page_view", "page_view", "engagement", "ad_impression", "ad_click"]
    made: list[bytes | dict[str, Any]] = [
        malformed(chance.choice(["line: not JSON", "x"]), chance.choice(["{", "", "ü"]), **fields, event_type="ad_click"),
        malformed("event_id: required", **fields),
        tombstone(3, 4, BASE_MS),
        chance.choice([b"{", b"[]", b"\xff", as_line(malformed("", "")), b'{"event_id":"e1"}']),
        event(name, "redirect", view=None, **fields),
        *(event(name, event_type, **fields) for event_type in types),
    ]
    line = chance.choice(made)
    return line if isinstance(line, bytes) else as_line({name: value for name, value in line.items() if value is not None})


def any_blocks(seed: int) -> list[AcceptedBlock]:
    chance = random.Random(seed)
    blocks = []
    for number in range(chance.randrange(1, 5)):
        text = b"".join(any_line(chance) + b"\n" for _ in range(chance.randrange(1, 12)))
        blocks.append(block_of(text, BASE_MS - chance.randrange(3), BASE_MS + number * chance.choice([0, 500]), number))
    return blocks


def together(blocks: list[AcceptedBlock]) -> Decoded:
    read = list(read_blocks(blocks))
    return Decoded({name: [v for one in read for v in one.columns[name]] for name in read[0].columns}, blocks)


def keys(digests: Words) -> list[bytes]:
    packed = np.empty((len(digests), 16), np.uint8)
    pack_digests(digests, np.arange(len(digests)), packed)
    return [row.tobytes() for row in packed]


def compare(blocks: list[AcceptedBlock], classifier: CellClassifier, look_ups: Enricher) -> ClassifiedCells:
    decoded = together(blocks)
    plain = classify_lines(decoded, look_ups)
    found = classifier.classify(CellReader().read(blocks))
    assert found.codes.tolist() == plain.codes
    assert found.rejections == plain.rejections
    assert [found.agents.facts[n] for n in found.agents.numbers] == [plain.agents.facts[n] for n in plain.agents.places]
    assert [found.agents.texts[n] for n in found.agents.numbers] == decoded.columns["user_agent"]
    assert [found.origins.texts[n] for n in found.origins.numbers] == decoded.columns["ip"]
    origins = [found.origins.facts[n] for n in found.origins.numbers]
    assert origins == [look_ups.origin(ip) for ip in decoded.columns["ip"]]
    has_id = [code > LineKind.ERASED for code in plain.codes]
    assert [key for key, ok in zip(keys(found.ids), has_id, strict=True) if ok] == [
        digest for digest, ok in zip(plain.digests, has_id, strict=True) if ok
    ]
    views = [bytes(16) if view is None else digest_of(view) for view in decoded.columns["page_view_id"]]
    assert keys(found.views) == views
    return found


@pytest.mark.parametrize("look_ups", [ENRICHER, PLACED], ids=["nowhere", "placed"])
def test_lines_are_classified_as_from_columns(look_ups: Enricher) -> None:
    classifier = CellClassifier(look_ups)
    kinds: set[int] = set()
    for seed in range(80):
        kinds |= set(compare(any_blocks(seed), classifier, look_ups).codes.tolist())
    assert kinds == set(range(9)) - {LineKind.DUPLICATE}


def test_ids_that_no_collector_stores_have_the_digest_of_their_text() -> None:
    blocks = [block_of(b"".join(as_line(event(name, view="v" * 400)) + b"\n" for name in ("", "e" * 65, "e" * 9000, "e1")))]
    compare(blocks, CellClassifier(ENRICHER), ENRICHER)


def test_earlier_answers_stay_when_the_memory_forgets() -> None:
    asked: list[str | None] = []

    def read(text: str | None) -> Any:
        asked.append(text)
        return ENRICHER.agent(text)

    def texts_of(agents: str) -> list[str | None]:
        block = block_of(b"".join(as_line(event("e", user_agent=agent)) + b"\n" for agent in agents))
        found = memory.of(CellReader().read([block]), FIELD["user_agent"])
        assert found.is_bot.tolist() == [facts.bot_rule is not None for facts in found.facts]
        answers.append((found, list(agents)))
        return [found.texts[n] for n in found.numbers]

    answers: list[tuple[LineFacts[Agent], list[str]]] = []
    memory = TextFacts(read, 3, 10**6)
    assert texts_of("aba") == list("aba")
    assert texts_of("bac") == list("bac")
    assert asked == [None, "a", "b", "c"]
    assert texts_of("ca") == list("ca")
    assert asked == [None, "a", "b", "c", None, "c", "a"]
    assert [[found.texts[n] for n in found.numbers] for found, _ in answers] == [agents for _, agents in answers]


class Filtered(MemoryState):
    """Says of some keys more than of those that it has that they may be there; counts the keys that it is asked for."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self.asked = 0

    def maybe(self, table: str, digests: Words) -> npt.NDArray[np.bool_]:
        return np.array([known or self._chance.random() < 0.2 for known in super().maybe(table, digests)], np.bool_)

    def get(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        self.asked += len(keys)
        return super().get(table, keys)


@pytest.mark.parametrize("seed", range(60))
def test_duplicates_are_found_as_from_columns(seed: int) -> None:
    chance = random.Random(seed)
    ids = [f"e{n}" for n in range(chance.choice([3, 30, 300]))]
    sizes = [chance.randrange(0, 12) for _ in range(chance.randrange(1, 6))]
    blocks = [
        block_of(b"\n" * (size + 1), BASE_MS + chance.randrange(3), BASE_MS + n * chance.choice([0, 900, 5000]), n)
        for n, size in enumerate(sizes)
    ]
    ends = list(accumulate(block.header.lines for block in blocks))
    positions = [n for n in range(ends[-1]) if chance.random() < 0.8]
    digests = [digest_of(chance.choice(ids)) for _ in positions]
    states: list[MemoryState] = [MemoryState(), filtered := Filtered(chance)]
    for name in chance.sample(ids, len(ids) // 3):
        value = pack_time(BASE_MS - chance.randrange(4000))
        for state in states:
            state.tables["seen"][digest_of(name)] = value
    words = np.array([(int.from_bytes(d[:8], "big"), int.from_bytes(d[8:], "big")) for d in digests], np.uint64)
    lines = ValidDigests(np.array(positions, np.int64), words.reshape(-1, 2), blocks, ends)
    window_ms = chance.choice([0, 2000, 10**9])
    plain = find_duplicates(ValidLines(positions, digests, blocks, ends), states[0], window_ms)
    for state in states:
        found = find_duplicate_digests(lines, state, window_ms)
        assert found == plain
        assert found.seen is None or list(found.seen.puts()) == list(plain.seen.puts() if plain.seen else [])
    assert filtered.asked < len(positions) or len(positions) < 15
