"""What a newer version wrote is not mangled, and what an older one wrote is read (rule E10)."""

import json
from typing import Any

import polars as pl
import pytest

from app.core.etl.flow_rows import PENDING_COLUMNS, PENDING_SCHEMA
from app.core.formats.columns import pack_frame, unpack_frame
from app.core.formats.flows import MAX_PROPERTIES_BYTES, PAGE_VIEWS
from app.core.formats.step_message import Changes
from app.core.state.tables import KEY_BYTES
from app.errors import NewerFormat
from tests.builders.source_log import CHROME, as_line, block, enricher, etl_rules, event, log_of, second, tick
from tests.worlds.etl_run import Run, ledger_of


def new_run() -> Run:
    return Run(etl_rules(), enricher())


def test_a_field_that_only_a_newer_collector_knows_is_kept_in_properties() -> None:
    lines = (event("a", "ad_click", mood="new", depth={"x": 1}), event("b", "ad_click", properties='{"mood":"own"}', mood=2))
    run = new_run().feed(log_of([block(*lines, event("c", "ad_click"))]))
    kept = {row["event_id"]: row["properties"] and json.loads(row["properties"]) for row in run.rows("ad_clicks")}
    assert kept == {"a": {"mood": "new", "depth": {"x": 1}}, "b": {"mood": "own"}, "c": None}


def test_a_field_for_which_properties_have_no_room_waits_for_the_upgrade() -> None:
    full = json.dumps({"a": "x" * (MAX_PROPERTIES_BYTES - 20)})
    with pytest.raises(NewerFormat, match=r"unknown fields \['mood'\]"):
        new_run().step(log_of([block(event("a", "ad_click", properties=full, mood="much more"))]))


@pytest.mark.parametrize("careful", [False, True])
def test_an_event_of_a_type_that_only_a_newer_collector_knows_is_never_rejected(careful: bool) -> None:
    run = new_run()
    messages = log_of([block(event("a", "ad_click")), block(event("b", "podcast_start"), batch=2)])
    with pytest.raises(NewerFormat, match=r"offset 1, batch .*podcast_start"):
        run.step(messages, careful=careful)
    run.step(messages[:1])
    assert [row["event_id"] for row in run.rows("ad_clicks")] == ["a"]


def test_a_malformed_line_keeps_its_reason_whatever_else_a_newer_collector_says_of_it() -> None:
    line = {"malformed": "line: not JSON", "payload": "{", "received_at": event("x")["received_at"], "mood": 1}
    [row] = new_run().feed(log_of([block(line)])).rows("rejected")
    assert (row["reason"], row["payload"]) == ("line: not JSON", "{")


def rewrite_pending(run: Run, change: Any) -> None:
    """Store the first events anew, as another version would have written them."""
    [(key, value)] = run.state.scan("pending")
    frame = change(unpack_frame(value))
    run.state.apply([Changes.pack("pending", KEY_BYTES["pending"], [(key, pack_frame(frame))])])
    run.restart()


CLOSES = [block(second("s", at_s=5), batch=2), tick(s=300)]


def test_a_window_that_an_older_version_stored_closes_with_nulls() -> None:
    run = new_run().feed(log_of([tick(s=0), block(event("f", section="news", url="https://a.example/"))]))
    rewrite_pending(run, lambda frame: frame.drop("section"))
    run.feed(log_of(CLOSES, first=2))
    [row] = run.rows("page_views")
    assert (row["event_id"], row["section"], row["city"], row["url"]) == ("f", None, None, "https://a.example/")
    assert row["joined"]
    assert sum(ledger_of(run.steps).values()) == 2


def test_a_window_with_a_value_that_only_a_newer_version_knows_waits_for_the_upgrade() -> None:
    run = new_run().feed(log_of([tick(s=0), block(event("f"))]))
    with pytest.raises(NewerFormat, match="mood"):
        rewrite_pending(run, lambda frame: frame.with_columns(pl.lit("high").alias("mood")))


def test_a_column_of_nulls_that_only_a_newer_version_knows_is_passed_over() -> None:
    """Else no pipeline could go back: a newer version's frames have the column even if nobody sends it."""
    run = new_run().feed(log_of([tick(s=0), block(event("f", url="https://a.example/"))]))
    rewrite_pending(run, lambda frame: frame.with_columns(pl.lit(None, pl.String).alias("mood")))
    run.feed(log_of(CLOSES, first=2))
    [row] = run.rows("page_views")
    assert (row["event_id"], row["url"], row["joined"], "mood" in row) == ("f", "https://a.example/", True, False)


def test_the_window_holds_no_new_column_of_a_line_of_an_older_collector() -> None:
    """So an older etl takes the window over while page views are open, if the collectors went back before it."""
    run = new_run().feed(log_of([tick(s=0), block(event("f", user_agent=CHROME))]))
    [(_, value)] = run.state.scan("pending")
    assert set(unpack_frame(value).columns) <= {*PAGE_VIEWS.at(1).names, "digest", "size"}


def test_a_user_agent_stays_with_its_line_if_the_collector_knows_the_kind_of_key() -> None:
    lines = [event("old", user_agent=CHROME), event("new", view="v2", user_agent=CHROME, key_kind="browser")]
    run = new_run().feed(log_of([tick(s=0), block(*lines), tick(s=300)]))
    kept = {row["event_id"]: (row["user_agent"], row["browser_version"], row["browser"]) for row in run.rows("page_views")}
    assert kept == {"old": (None, None, "Chrome"), "new": (CHROME, "126.0.0.0", "Chrome")}


def test_the_window_holds_what_a_first_event_brings_and_no_more() -> None:
    brought = {
        "event_id",
        "page_view_id",
        "url",
        "section",
        "properties",
        "country",
        "device",
        "batch_id",
        "line",
        "received_at",
    }
    assert brought <= set(PENDING_SCHEMA)
    assert not {"joined", "dwell_ms", "referrer_medium", "article_title", "engagement_id", "txn_id"} & PENDING_COLUMNS
    assert as_line(event("x"))  # what is stored has none of them either
