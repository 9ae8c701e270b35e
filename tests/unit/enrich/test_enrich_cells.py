"""Enrichment out of cells makes what it makes of rows, value for value (rule J5)."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.adapters.enrichment import read_lists
from app.core.enrich.enrich import Enricher, Lists
from app.core.enrich.enrich_cells import enrich_cells
from app.core.enrich.row_columns import enrich_rows
from app.core.enrich.url_tags import MAX_TAG_BYTES
from app.core.formats.arrow_stream import read_stream, write_stream
from app.core.formats.cell_table import BUFFER_KINDS, Source, gather, table_of
from app.core.formats.columns import DTYPES, unpack_frame
from app.core.formats.flows import AD_CLICKS, FLOWS, PAGE_VIEWS, REDIRECTS, ColumnKind, Flow

ARTICLES = {"a-1": {"title": "Ü", "author_id": "au", "section": "sport"}, "a-2": {"title": 7}}
CAMPAIGNS = {"spring": {"name": "Spring", "network": "n"}, "b c": {"name": "B"}}
Row = dict[str, Any]


@cache
def enricher(*, knows_referrers: bool = True) -> Enricher:
    lists = read_lists()
    return Enricher(ARTICLES, CAMPAIGNS, lists if knows_referrers else Lists(lists.networks, lists.bots))


def by_cells(flow: Flow, rows: Sequence[Row], knows: Enricher) -> pl.DataFrame:
    """What enrichment out of cells makes of `rows`."""
    kinds = {column.name: BUFFER_KINDS[column.kind] for column in flow.columns}
    names = dict.fromkeys(name for row in rows for name in row)
    table = table_of({name: (kinds[name], [row.get(name) for row in rows]) for name in names})
    lines = np.arange(len(rows))
    made = enrich_cells(flow, {name: Source(table, lines, name, kinds[name]) for name in names}, len(rows), knows)
    packed = write_stream(len(rows), gather(len(rows), made))
    assert read_stream(packed) is not None
    return unpack_frame(packed)


def by_rows(flow: Flow, rows: Sequence[Row], knows: Enricher) -> dict[str, list[Any]]:
    """What enrichment makes of a frame of `rows`."""
    dtypes = {column.name: DTYPES[column.kind] for column in flow.columns}
    names = dict.fromkeys(name for row in rows for name in row)
    frame = pl.DataFrame([pl.Series(name, [row.get(name) for row in rows], dtype=dtypes[name]) for name in names])
    made = enrich_rows(flow, frame, knows)
    return {column.name: column.to_list() for column in made if column.null_count() < len(rows)}


HOSTS = st.sampled_from([
    "n.example", "www.n.example", "news.n.example", "WWW.Example.COM", "u:p@n.example:80", "n.example:8080", "", "[::1]",
    "münchen.example", "n.example.", ".n.example", "10.0.0.1", "www.google.co.uk", "t.co", "cdn.ampproject.org",
    "www-n-example.cdn.ampproject.org", "a_b-c.example", "h" * 300, "x" * 256, "a b", "%41.example",
])  # fmt: skip
PATHS = st.sampled_from(
    ["", "/", "/a/b.html", "/a;b=1", "\\x", "/v/s/n.example/a", "/c/s/n.example/x", "/ü", "/" + "p" * 900]
)
NAMES = st.sampled_from([
    *MAX_TAG_BYTES, "x", "my_utm_source", "UTM_SOURCE", "Gclid", "amp;utm_medium", ";utm_term", "utm_\u017fource", "",
    "utm_id", "utm_campaign2", "utm_campaig",
])  # fmt: skip
VALUES = st.sampled_from([
    "a", "spring", "b+c", "%41b", "caf%E9", "", "+", "%20", "v" * 128, "v" * 129, "w" * 512, "w" * 513, "ü", "a=b",
    "a?utm_term=t", "\x7f", "a b", "x;y", "100%", "{{ad.id}}",
])  # fmt: skip
PARAMETERS = st.lists(st.tuples(NAMES, st.sampled_from(["=", ""]), VALUES).map("".join), max_size=4).map("&".join)
ADDRESSES = st.one_of(
    st.tuples(
        st.sampled_from(["https://", "http://", "//", "", "/", "android-app://", "https:/", "a\\b//", "mailto:", "?//"]),
        HOSTS, PATHS, st.sampled_from(["", "?", "??"]), PARAMETERS,
        st.sampled_from(["", "#", "#f", "#utm_term=x", "#a?b"]),
    ).map("".join),
    st.sampled_from(["about:blank", "google.com", "www.google.com/search", "n.example", "mail", "https://", "//", "?", "#"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
)  # fmt: skip
OWN = st.sampled_from(["spring", "own", "b c", ""])
LANDINGS = st.lists(
    st.fixed_dictionaries({}, optional={"url": ADDRESSES, "referrer": ADDRESSES, "campaign_id": OWN, "line": st.just(7)}),
    min_size=1, max_size=12,
)  # fmt: skip


@settings(max_examples=400)
@given(LANDINGS, st.sampled_from([PAGE_VIEWS, REDIRECTS]), st.booleans())
@example([{"url": "https://n.example/?utm_source=a&utm_medium=%41&gclid=g&fbclid=f#x"}], PAGE_VIEWS, True)
@example(
    [{"referrer": "google.com", "url": "//n.example"}, {"referrer": "https://google.com", "url": "//n.example"}],
    PAGE_VIEWS,
    True,
)
@example([{"referrer": "https://a"}, {"url": "//n.example"}], REDIRECTS, True)
def test_addresses(rows: list[Row], flow: Flow, knows_referrers: bool) -> None:
    knows = enricher(knows_referrers=knows_referrers)
    assert by_cells(flow, rows, knows).to_dict(as_series=False) == by_rows(flow, rows, knows)


@given(st.lists(st.fixed_dictionaries({}, optional={
    "article_id": st.sampled_from(["a-1", "a-2", "a-3", ""]), "author_id": st.sampled_from(["x", ""]),
    "section": st.just("s"),
    "user_agent": st.sampled_from(["Mozilla/5.0 (X11; Linux x86_64) Firefox/120.0", "curl/8", ""]),
}), min_size=1, max_size=12))  # fmt: skip
def test_articles_and_agents(rows: list[Row]) -> None:
    assert by_cells(PAGE_VIEWS, rows, enricher()).to_dict(as_series=False) == by_rows(PAGE_VIEWS, rows, enricher())


def test_currencies() -> None:
    rows = [{"currency": "eur", "line": 1}, {"line": 2}, {"currency": "USD"}, {"currency": "eur"}]
    assert by_cells(AD_CLICKS, rows, enricher()).to_dict(as_series=False) == {"currency": ["EUR", None, "USD", "EUR"]}


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_column_of_a_flow_can_be_gathered(flow: Flow) -> None:
    value: dict[ColumnKind, Any] = {
        ColumnKind.STRING: "ü", ColumnKind.TIMESTAMP: 5, ColumnKind.INTEGER: -1, ColumnKind.BOOLEAN: True,
    }  # fmt: skip
    kinds = {column.name: BUFFER_KINDS[column.kind] for column in flow.columns}
    values = {column.name: [value[column.kind], None, value[column.kind]] for column in flow.columns}
    lines = np.array([2, -1, 0, 1])
    for names in (list(kinds)[:60], list(kinds)[60:]):
        table = table_of({name: (kinds[name], values[name]) for name in names})
        frame = unpack_frame(write_stream(4, gather(4, {n: Source(table, lines, n, kinds[n]) for n in names})))
        assert frame.to_dict(as_series=False) == {n: [values[n][0], None, values[n][0], None] for n in names}
