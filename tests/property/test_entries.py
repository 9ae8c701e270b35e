"""What is sorted by columns is what the changes put, one after the other: every key once, with its last value."""

from hypothesis import given
from hypothesis import strategies as st

from app.core.formats.step_message import Changes
from app.core.state.tables import EXPIRING, KEY_BYTES, MemoryState
from tables.store.entries import TAGS, last_changes, sorted_puts


@st.composite
def puts(draw: st.DrawFn) -> Changes:
    """Puts as steps make them; few keys, so that they come again."""
    table = draw(st.sampled_from(sorted(EXPIRING)))
    numbers = st.integers(0, 5).map(lambda n: (n * 7 ** draw(st.sampled_from((0, 20, 55)))).to_bytes(20, "big"))
    keys = numbers.map(lambda key: key[-KEY_BYTES[table] :])
    values = st.tuples(st.integers(0, 2**40), st.binary(max_size=44 if table == "views" else 0)).map(
        lambda value: value[0].to_bytes(8, "big") + value[1]
    )
    return Changes.pack(table, KEY_BYTES[table], draw(st.dictionaries(keys, values, max_size=4)).items())


@given(st.lists(puts(), max_size=8))
def test_every_key_is_there_once_with_its_last_value(changes: list[Changes]) -> None:
    state = MemoryState()
    state.apply(changes)
    expected = {TAGS[table] + key: value for table in EXPIRING for key, value in state.tables[table].items()}
    assert last_changes(changes) == expected
    found = sorted_puts(changes)
    if found is None:
        assert not expected
        return
    assert list(found.entries()) == sorted(expected.items())
    times = [int.from_bytes(value[:8], "big") for change in changes for _, value in change.puts()]
    assert (found.oldest_ms, found.youngest_ms) == (min(times), max(times))


def test_more_entries_than_are_taken_at_once() -> None:
    """Two messages of which the second has half the keys of the first."""
    first = [(n.to_bytes(16, "little"), n.to_bytes(8, "big")) for n in range(20_000)]
    second = [(key, bytes(8)) for key, _ in first[::2]]
    found = sorted_puts([Changes.pack("seen", 16, first), Changes.pack("seen", 16, second)])
    assert found is not None
    assert list(found.entries()) == sorted((b"s" + key, value) for key, value in dict([*first, *second]).items())


def test_deletes_and_values_without_a_time_are_not_sorted() -> None:
    key, stored = bytes(16), bytes(8)
    even = Changes.pack("seen", 16, [(key, stored)])
    assert sorted_puts([even]) is not None
    assert sorted_puts([]) is None
    assert sorted_puts([even, Changes.pack("views", 16, [], [key])]) is None
    assert sorted_puts([even, Changes.pack("seen", 16, [(key, stored + b"more")])]) is not None
    assert sorted_puts([Changes.pack("seen", 16, [(key, b"short")])]) is None


def test_deletes_and_puts_of_several_steps_leave_what_the_last_did() -> None:
    one, two = (n.to_bytes(8, "big") for n in (1, 2))
    steps = [
        Changes.pack("pending", 8, [(one, b"a"), (two, b"b")]),
        Changes.pack("pending", 8, [(two, b"c")], [one, two]),
        Changes.pack("pending", 8, [], [two]),
        Changes.pack("pending", 8, [(one, b"d")]),
    ]
    assert last_changes(steps) == {b"p" + one: b"d", b"p" + two: None}
