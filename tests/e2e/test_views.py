"""The analysts' views on hand-made rows: what they answer, to the micro."""

import json
import time
from typing import Any

import pytest
from pyroaring import BitMap

from agents.delivery.load import WarehouseLoad
from app.adapters.warehouse import connect, to_warehouse
from app.clock import SystemClock
from app.core.formats.flow_files import ledger_frame
from app.core.formats.step_message import LedgerEntry
from app.core.formats.transaction_record import ready_of
from tests.worlds.warehouse import Warehouse, put_transaction

BATCH = "01900000-0000-7000-8000-000000000001"


class Story:
    """Rows by their age; each table's rows get what it wants besides."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, dict[str, Any], int]] = []

    def add(self, table: str, age_minutes: int = 5, **columns: Any) -> None:
        common = {"event_id": f"e{len(self.rows)}", "batch_id": BATCH, "txn_id": "t", "line": len(self.rows)}
        self.rows.append((table, common | columns, age_minutes))

    def view(self, page_view_id: str, age_minutes: int = 5, **columns: Any) -> None:
        self.add("page_views", age_minutes, page_view_id=page_view_id, joined=columns.pop("joined", False), **columns)

    async def tell(self, warehouse: Warehouse) -> None:
        async with await connect(warehouse.settings.warehouse_url) as connection:
            for table, columns, age in self.rows:
                names = ", ".join(f'"{name}"' for name in columns)
                places = ", ".join(["%s"] * len(columns))
                await connection.execute(
                    f"INSERT INTO analytics.{table} ({names}, received_at) "
                    f"VALUES ({places}, GETDATE() - INTERVAL '{age} minutes')".encode(),
                    tuple(columns.values()),
                )


async def test_campaign_profit(warehouse: Warehouse) -> None:
    story = Story()
    story.view("p1", campaign_id="won", campaign_name="Winner")
    story.view("p1", age_minutes=1, campaign_id="late-comer")  # the same page view again: it belongs where it came first
    story.view("p2", campaign_id="won")
    story.view("p3", campaign_id="free")
    story.view("p4")  # no campaign
    for page_view, table, revenue in (
        ("p1", "ad_impressions", 100), ("p1", "ad_impressions", 50), ("p1", "ad_clicks", 1000), ("p2", "ad_clicks", None),
        ("p3", "ad_impressions", 7), ("p4", "ad_clicks", 9_999), ("unknown", "ad_clicks", 9_999),
    ):  # fmt: skip
        story.add(table, page_view_id=page_view, revenue_micros=revenue, campaign_id="of-the-ad")
    story.add("redirects", campaign_id="won", cost_micros=400)
    story.add("redirects", campaign_id="won", cost_micros=520)
    story.add("redirects", campaign_id="lost", cost_micros=300, campaign_name="Loser")
    story.add("redirects", campaign_id=None, cost_micros=77)
    await story.tell(warehouse)

    found = await warehouse.query(
        "SELECT campaign_id, campaign_name, page_views, redirects, income_micros, cost_micros, profit_micros, roi "
        "FROM analytics.campaign_profit ORDER BY campaign_id"
    )

    assert found == [
        ("free", None, 1, 0, 7, 0, 7, None),
        ("lost", "Loser", 0, 1, 0, 300, -300, -1.0),
        ("won", "Winner", 2, 2, 1150, 920, 230, pytest.approx(0.25)),
    ]


async def test_page_view_engagement_takes_every_report_of_a_page_view(warehouse: Warehouse) -> None:
    story = Story()
    at = "2023-11-14 22:13:{}"
    story.view("p1", article_id="a", occurred_at=at.format("00"), joined=True, engaged_at=at.format("20"), scroll_pct=40)
    story.view("p1", age_minutes=1, article_id="b")  # the same page view again: it counts once, where it came first
    for second, reason, scroll in (("10", "extra", 70), ("50", "late", 30), ("30", "extra", None)):
        story.add("engagements", page_view_id="p1", occurred_at=at.format(second), reason=reason, scroll_pct=scroll)
    own = {"dwell_ms": 90_000, "visible_ms": 80_000, "engaged_ms": 70_000, "scroll_pct": 90}
    story.view("p2", joined=True, engaged_at=at.format("30"), **own)
    story.add("engagements", page_view_id="p2", reason="late", occurred_at=at.format("40"), engaged_ms=75_000)
    story.view("p3")
    story.add("engagements", page_view_id="nobody", reason="no_first")
    await story.tell(warehouse)

    found = await warehouse.query(
        "SELECT page_view_id, article_id, reports, EXTRACT(SECOND FROM last_at)::int, dwell_ms, engaged_ms, scroll_pct "
        "FROM analytics.page_view_engagement ORDER BY page_view_id"
    )

    assert found == [
        ("p1", "a", 4, 50, None, None, 70),
        ("p2", None, 2, 40, 90_000, 75_000, 90),
        ("p3", None, 0, None, None, None, None),
    ]


async def test_campaign_profit_adds_no_two_currencies(warehouse: Warehouse) -> None:
    story = Story()
    for view in ("p1", "p2", "p3"):
        story.view(view, campaign_id="both")
    story.view("p4", campaign_id="read")
    for currency, revenue in (("EUR", 100), ("EUR", 20), ("USD", 5), (None, 1)):
        story.add("ad_clicks", page_view_id="p1", revenue_micros=revenue, currency=currency)
    story.add("redirects", campaign_id="both", cost_micros=40, currency="EUR", campaign_name="Both")
    story.add("redirects", campaign_id="both", cost_micros=9, currency="CHF")
    await story.tell(warehouse)

    found = await warehouse.query(
        "SELECT campaign_id, currency, page_views, redirects, income_micros, cost_micros, profit_micros, roi "
        "FROM analytics.campaign_profit ORDER BY campaign_id, currency"
    )

    assert found == [
        ("both", "CHF", 3, 1, 0, 9, -9, -1.0), ("both", "EUR", 3, 1, 120, 40, 80, 2.0), ("both", "USD", 3, 0, 5, 0, 5, None),
        ("both", None, 3, 0, 1, 0, 1, None), ("read", None, 1, 0, 0, 0, 0, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("currencies", "expected"),
    [(("EUR", "EUR"), (3, "EUR")), (("EUR", "USD"), (None, None)), (("EUR", None), (None, None)), ((None, None), (3, None))],
)
async def test_revenue_of_more_than_one_currency_is_null(
    warehouse: Warehouse, currencies: tuple[str | None, str | None], expected: tuple[int | None, str | None]
) -> None:
    story = Story()
    story.view("p1", article_id="a1", author_id="ann")
    for table, revenue, currency in zip(("ad_impressions", "ad_clicks"), (1, 2), currencies, strict=True):
        story.add(table, page_view_id="p1", revenue_micros=revenue, currency=currency)
    await story.tell(warehouse)

    for view in ("popular_articles", "popular_authors"):
        assert await warehouse.query(f"SELECT revenue_micros, currency FROM analytics.{view}") == [expected]


async def test_popular_articles(warehouse: Warehouse) -> None:
    story = Story()
    common = {"article_id": "a1", "article_title": "Title", "author_id": "au", "section": "news"}
    story.view("p1", visitor_id="v1", joined=True, dwell_ms=1000, visible_ms=400, scroll_pct=50, **common)
    story.view("p2", visitor_id="v1", joined=True, dwell_ms=2000, scroll_pct=100, **common)
    story.view("p3", visitor_id="v2", **common)
    story.view("p4", article_id="a2", visitor_id="v1")
    story.view("p5", age_minutes=8 * 24 * 60, article_id="a2")  # too old
    story.view("p6")  # no article
    story.add("ad_clicks", page_view_id="p1", article_id="a1", revenue_micros=30)
    story.add("ad_impressions", page_view_id="p1", revenue_micros=3)  # names no article: its page view does
    story.add("ad_impressions", page_view_id="unknown", revenue_micros=500)  # nor this, and its page view is not known
    story.add("ad_impressions", age_minutes=8 * 24 * 60, page_view_id="p1", article_id="a1", revenue_micros=500)
    await story.tell(warehouse)

    found = await warehouse.query(
        "SELECT place, article_id, article_title, author_id, section, page_views, visitors, "
        "round(joined_share::numeric, 4)::float, "
        "mean_dwell_ms, mean_visible_ms, mean_scroll_pct, revenue_micros FROM analytics.popular_articles ORDER BY place"
    )

    assert found == [
        (1, "a1", "Title", "au", "news", 3, 2, 0.6667, 1500.0, 400.0, 75.0, 33),
        (2, "a2", None, None, None, 1, 1, 0.0, None, None, None, 0),
    ]


async def test_popular_authors(warehouse: Warehouse) -> None:
    story = Story()
    story.view(
        "p1", author_id="ann", article_id="a1", visitor_id="v1", joined=True, dwell_ms=10, visible_ms=4, scroll_pct=20
    )
    story.view("p1", age_minutes=1, author_id="bob", article_id="a3", visitor_id="v1")  # its ads stay ann's
    story.view("p2", author_id="ann", article_id="a2", visitor_id="v2")
    story.view("p3", age_minutes=31 * 24 * 60, author_id="bob", article_id="a3")  # too old
    story.add("ad_impressions", page_view_id="p1", revenue_micros=5)
    story.add("ad_clicks", page_view_id="p2", revenue_micros=6)
    await story.tell(warehouse)

    found = await warehouse.query(
        "SELECT place, author_id, articles, page_views, visitors, joined_share::float, mean_dwell_ms, mean_visible_ms, "
        "mean_scroll_pct, revenue_micros FROM analytics.popular_authors ORDER BY place"
    )

    assert found == [
        (1, "ann", 2, 2, 2, 0.5, 10.0, 4.0, 20.0, 11),
        (2, "bob", 1, 1, 1, 0.0, None, None, None, 0),
    ]


async def test_trends(warehouse: Warehouse) -> None:
    story = Story()
    for n in range(3):
        story.view(f"new{n}", age_minutes=5 + 20 * n, article_id="new", article_title="New", section="news")
    story.view("steady", age_minutes=30, article_id="steady")
    for n in range(24):
        story.view(f"steady{n}", age_minutes=70 + 55 * n, article_id="steady")
    story.view("over", age_minutes=90, article_id="over")
    story.view("old", age_minutes=26 * 60, article_id="new")
    await story.tell(warehouse)

    found = await warehouse.query(
        "SELECT article_id, article_title, section, views_15_minutes, views_hour, baseline_per_hour, score "
        "FROM analytics.trends ORDER BY score DESC"
    )

    assert found == [("new", "New", "news", 1, 3, 0.0, 4.0), ("steady", None, None, 0, 1, 1.0, 1.0)]


async def test_shares_and_means_are_floating_point(warehouse: Warehouse) -> None:
    """Redshift's AVG keeps the scale of a NUMERIC: the mean of 1.0 and 0.0 would have one decimal."""
    found = await warehouse.query(
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'analytics' "
        "AND (column_name LIKE '%share' OR column_name LIKE 'mean%' OR column_name IN ('roi', 'score', 'baseline_per_hour'))"
    )

    assert len(found) == 12
    assert {kind for _, _, kind in found} == {"double precision"}


async def test_browser_loss(warehouse: Warehouse) -> None:
    began_ms = int(time.time() * 1000) - 2 * 3_600_000
    story = Story()

    def own(seq: object, tab: int = 1, tab_ms: int = began_ms) -> str:
        return json.dumps({"tab": f"{tab_ms}-{tab}-2-3", "seq": seq}, separators=(",", ":"))

    # The first tab: 1 and 2 are one row, 3 and 5 came, 5 twice (another tab was opened as its copy), 4 and 6 never did.
    story.view("p1", age_minutes=100, properties=own(1), joined=True, engagement_properties=own(2))
    story.add("ad_impressions", age_minutes=100, page_view_id="p1", properties=own(3))
    story.add("ad_clicks", age_minutes=99, page_view_id="p1", properties=own(5))
    story.add("engagements", age_minutes=99, page_view_id="p1", properties=own(5))
    story.add("redirects", age_minutes=98, page_view_id="p1", properties=own(7))
    # The second lost nothing; the third is still read; the fourth is older than what is looked at.
    story.view("p2", age_minutes=100, properties=own(1, tab=2))
    story.view("p3", age_minutes=100, properties=own(9, tab=3))
    story.view("p3", age_minutes=5, properties=own(10, tab=3))
    story.view("p4", age_minutes=100, properties=own(90, tab=4, tab_ms=began_ms - 31 * 86_400_000))
    # Events of others, and of nobody's tracker.
    others = (None, '{"own":1}', own("x", tab=5), own(-1, tab=5), own(10**9, tab=5), '{"tab":"t","seq":1}')
    for number, properties in enumerate(others):
        story.view(f"q{number}", age_minutes=100, properties=properties)
    await story.tell(warehouse)

    found = await warehouse.query(
        "SELECT SUM(tabs), SUM(tabs_with_loss), SUM(sent), SUM(received), SUM(lost), MAX(lost_share) "
        "FROM analytics.browser_loss"
    )

    assert found == [(2, 1, 8, 6, 2, 0.25)]


async def test_line_fates(warehouse: Warehouse) -> None:
    sets = {"page_views": [0, 3, 4], "joined": [1], "duplicate": [2, 70_000], "rejected": []}
    entries = [
        LedgerEntry(BATCH, outcome, len(lines), BitMap(lines).serialize()) for outcome, lines in sets.items() if lines
    ]
    frames = {"ledger": ledger_frame(entries, "t")}
    assert frames["ledger"].height == 4  # a row whose lines lie further apart than line_bits is long is cut
    record = await put_transaction(warehouse, 1, frames)
    load = WarehouseLoad(warehouse.store, to_warehouse(warehouse.settings), warehouse.settings, SystemClock())
    assert (await load.load([ready_of(record)], {})).failure is None
    await load.close()
    old = "INSERT INTO analytics.ledger (txn_id, batch_id, outcome, lines, line_set) VALUES ('t', 'old', 'joined', 1, 'x')"
    async with await connect(warehouse.settings.warehouse_url) as connection:
        await connection.execute(old.encode())
    query = "SELECT line, outcome, txn_id FROM analytics.line_fates WHERE batch_id = '{}' ORDER BY line"
    assert await warehouse.query(query.format(BATCH)) == [
        (line, outcome, record.txn_id) for line, outcome in sorted((n, name) for name, lines in sets.items() for n in lines)
    ]
    assert await warehouse.query(query.format("old")) == []
