"""Whatever hashes a section of the index has: the search finds each entry of a hash, and reads little of the section."""

import random
from array import array

from hypothesis import given
from hypothesis import strategies as st

from app.core.audit.trace.search import EntrySearch
from app.core.formats.id_index import (
    Entries,
    IdsOfBatch,
    Segment,
    build,
    decode_segment,
    encode_segment,
    hash_in,
    merge,
    place_in,
)

LAST = (1 << 32) - 1
HASHES = st.lists(st.one_of(st.integers(0, LAST), st.integers(0, 3), st.integers(LAST - 3, LAST)), max_size=60)


def found_in(entries: Entries, wanted: int, most: int = 10**6) -> tuple[EntrySearch, int]:
    """A finished search, and the number of entries that it read."""
    search, read = EntrySearch(len(entries), wanted, most), 0
    while (asked := search.ask()) is not None:
        some = entries[asked.first : asked.end]
        assert len(some) == asked.end - asked.first > 0
        read += len(some)
        search.take(asked, some)
    return search, read


@given(HASHES, st.integers(1, 900), st.data())
def test_every_entry_of_a_hash_is_found(hashes: list[int], heavy: int, data: st.DataObject) -> None:
    """One hash may have very many entries, which shifts the others away from their expected places."""
    wanted = data.draw(st.one_of(st.sampled_from(hashes) if hashes else st.just(5), st.integers(0, LAST)))
    crowd = data.draw(st.one_of(st.just(wanted), st.integers(0, LAST)))
    hashes = [*hashes, *[crowd] * heavy]
    entries = array("Q", sorted(each << 32 | n for n, each in enumerate(hashes)))
    search, _ = found_in(entries, wanted)
    assert search.found == [entry for entry in entries if hash_in(entry) == wanted]
    assert not search.is_cut


def test_a_search_in_a_million_reads_a_few_kilobytes() -> None:
    chance = random.Random(1)
    entries = array("Q", sorted(chance.getrandbits(64) for _ in range(1_000_000)))
    for entry in chance.sample(entries, 200):
        search, read = found_in(entries, hash_in(entry))
        assert entry in search.found
        assert read * 8 <= 64 * 1024


def test_a_crowd_of_one_hash_costs_few_reads() -> None:
    chance = random.Random(2)
    hashes = [chance.getrandbits(32) for _ in range(20_000)] + [7 << 28] * 200_000
    entries = array("Q", sorted(each << 32 for each in hashes))
    for wanted in hashes[:100]:
        search, read = found_in(entries, wanted)
        assert search.found
        assert read <= 20 * 1900
    crowd, _ = found_in(entries, 7 << 28, most=1000)
    assert (len(crowd.found), crowd.is_cut) == (1000, True)


IDS = st.lists(st.one_of(st.none(), st.sampled_from([f"id-{n}" for n in range(6)])), max_size=8)


def batch(number: int, ids: list[str | None]) -> IdsOfBatch:
    return IdsOfBatch(f"{number:08x}-0000-7000-8000-000000000000", ids, ids[::-1])


def lines_of(segment: Segment, entries: Entries) -> set[tuple[int, str, int]]:
    """(hash, batch, line) of each entry."""
    return {(hash_in(each), segment.batch_ids[place_in(each).batch], place_in(each).line) for each in entries}


@given(st.lists(IDS, max_size=8), st.integers(0, 8))
def test_segments_merged_hold_what_one_segment_of_all_batches_holds(ids: list[list[str | None]], cut: int) -> None:
    batches = [batch(n, each) for n, each in enumerate(ids)]
    whole, merged = build(batches), merge([build(batches[:cut]), build(batches[cut:])])
    for kind in ("events", "views"):
        assert list(getattr(merged, kind)) == sorted(getattr(merged, kind))
        assert lines_of(merged, getattr(merged, kind)) == lines_of(whole, getattr(whole, kind))
    assert encode_segment(build(batches[::-1])) == encode_segment(whole)
    assert decode_segment(encode_segment(merged)) == merged
    assert len(encode_segment(merged)) == merged.counts.size_bytes
