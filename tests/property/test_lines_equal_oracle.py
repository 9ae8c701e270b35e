"""Any event is stored as the oracle of lines says, and what is stored reads back as a row's fields."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.events.parse import parse_line
from app.core.events.read_stored import read_stored_line
from tests.builders.events import NOW_MS
from tests.oracle_of_lines import COLUMNS, NUMBERS, TEXTS, plain, stored_of

letters = st.characters(codec="utf-8", exclude_characters="\0")
wrong: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", True, False, [], {}, ["a"], {"k": 1}, "text", 7, -7, 0.5, 7.0, 1e3]
)
numbers: st.SearchStrategy[Any] = (
    st.integers(-5, 120) | st.integers(-(2**64), 2**64) | st.integers(-40, 4000).map(lambda n: n / 8)
)
moments: st.SearchStrategy[Any] = st.one_of(
    st.integers(NOW_MS - 10**9, NOW_MS + 2 * 10**8),
    st.integers(9 * 10**8, 11 * 10**9),
    st.integers(8 * (NOW_MS - 10**6), 8 * NOW_MS).map(lambda n: n / 8),
    st.datetimes().map(lambda at: at.isoformat(timespec="milliseconds") + "Z"),
    st.sampled_from(["2025-06-15", "2025-06-15T10:00", "2025-06-15T10:00:00+02:00", "2025-06-15T25:00", "today"]),
)
addresses: st.SearchStrategy[Any] = st.lists(
    st.sampled_from(["203.0.113.9", "10.0.0.1:80", "[2001:db8::1]:443", "fe80::1%eth0", "unknown", "8.8.8.8", "1.2.3"]),
    max_size=3,
).map(", ".join)
agents: st.SearchStrategy[Any] = st.sampled_from(["Named/1", "Mozilla/5.0"])


def text_of(longest: int) -> st.SearchStrategy[Any]:
    long = st.builds(lambda head, filler: head + filler * longest, st.text(letters, max_size=3), st.sampled_from("x\u00e9"))
    return st.text(letters, max_size=12) | st.just("x" * longest) | long


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    def rarely_wrong(usual: st.SearchStrategy[Any]) -> Any:
        return draw(wrong if draw(st.integers(0, 7)) == 0 else usual)

    ids = st.from_regex(r"[A-Za-z0-9_-]{1,66}", fullmatch=True)
    sent = {
        "event_type": rarely_wrong(st.sampled_from(sorted(COLUMNS))), "event_id": rarely_wrong(ids),
        "page_view_id": rarely_wrong(ids), "occurred_at": rarely_wrong(moments),
    }  # fmt: skip
    fields: dict[str, st.SearchStrategy[Any]] = {
        **{name: text_of(longest) for name, longest in TEXTS.items()},
        **dict.fromkeys(NUMBERS, numbers),
        "webdriver": st.booleans(),
        "currency": st.sampled_from(["EUR", "usd", "E1R", "EURO", "EUR\n"]),
        "properties": st.dictionaries(st.sampled_from(["url", "occurred_at", "own"]), wrong, max_size=2),
        "unknown": wrong, "ip": addresses, "user_agent": agents,
    }  # fmt: skip
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=6, unique=True)):
        sent[name] = rarely_wrong(fields[name])
    names = draw(st.permutations(sorted(sent)))
    return {name: sent[name] for name in names if name in sent}


@settings(max_examples=600, deadline=None)
@given(events(), st.sampled_from(["browser", "server"]))
def test_an_event_is_stored_as_the_oracle_says(sent: dict[str, Any], kind: Any) -> None:
    line = parse_line(json.dumps(sent).encode(), kind, NOW_MS, None, None)
    assert plain(line.data) == stored_of(json.loads(json.dumps(sent)), kind, NOW_MS)
    assert line.valid == ("malformed" not in plain(line.data))
    again = {name: value for name, value in read_stored_line(line.data).items() if value is not None}
    assert again == json.loads(line.data)
