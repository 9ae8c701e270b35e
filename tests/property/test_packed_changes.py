"""What is packed into a step's changes is read from the message as it was, however many and however wide."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from app.core.formats.step_message import Changes

KEYS = st.binary(min_size=4, max_size=4)


@given(
    st.integers(0, 300).flatmap(
        lambda width: st.dictionaries(KEYS, st.binary(min_size=width, max_size=width), max_size=200)
    ),
    st.dictionaries(KEYS, st.binary(max_size=20), max_size=3),
    st.sets(KEYS, max_size=5),
)
def test_changes_come_back_as_they_were_packed(
    even: dict[bytes, bytes], uneven: dict[bytes, bytes], gone: set[bytes]
) -> None:
    puts = even | uneven
    packed = Changes.pack("seen", 4, puts.items(), sorted(gone))
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(packed), type=Changes)
    for changes in (packed, read):
        assert list(changes.puts()) == sorted(puts.items())
        assert list(changes.deleted()) == sorted(gone)
