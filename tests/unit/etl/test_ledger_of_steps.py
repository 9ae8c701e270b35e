"""Steps: what they take, refuse, repeat and report (rules E1, E4, E6, E7), and their ledger."""

from typing import Any

import polars as pl
import pytest
import zstandard

from app.core.enrich.enrich import Enricher
from app.core.formats.block import MAX_RAW_BYTES, open_frame
from app.core.formats.step_message import Replay
from app.errors import EpochMismatch, FrameInvalid, IllegalMove, SourceGap
from tests.builders.source_log import (
    BASE_MS,
    GOOGLEBOT,
    as_line,
    at_ms,
    batch_id,
    block,
    enricher,
    etl_rules,
    event,
    log_of,
    malformed,
    second,
    tick,
)
from tests.worlds.etl_run import Run, ledger_of

DAY_S = 86_400


def new_run(**rules: int) -> Run:
    return Run(etl_rules(**rules), enricher())


def test_every_line_of_a_mixed_block_is_in_the_ledger_once() -> None:
    run = new_run().feed(log_of([
        block(
            event("f"), malformed(), event("i", "ad_impression"), event("c", "ad_click"), event("r", "redirect", view=None),
            event("b", user_agent=GOOGLEBOT), event("f"), second("s"), second("t", view="v2"), first_line=7,
        ),
        tick(s0=300),
    ]))  # fmt: skip
    assert {line: outcome for _, line, outcome in ledger_of(run.steps)} == {
        7: "page_views", 8: "rejected", 9: "ad_impressions", 10: "ad_clicks", 11: "redirects", 12: "rejected",
        13: "duplicate", 14: "joined", 15: "engagements",
    }  # fmt: skip
    assert {row["line"] for row in run.rows("rejected")} == {8, 12}


def test_duplicates_across_blocks_steps_and_restarts() -> None:
    run = new_run()
    run.step(log_of([block(event("e1", "ad_click"), batch=1), block(event("e1", "ad_click", at_s=5), batch=2)]))
    run.restart()
    run.step(log_of([block(event("e1", "ad_click"), event("e2", "ad_click"), event("e2", "ad_click"), batch=3)], first=2))
    assert sorted(row["event_id"] for row in run.rows("ad_clicks")) == ["e1", "e2"]
    assert sum(outcome == "duplicate" for *_, outcome in ledger_of(run.steps)) == 3


def test_a_block_met_again_is_a_replay_without_ledger() -> None:
    run = new_run()
    first = block(event("e1", "ad_click"), batch=1)
    again = block(event("e1", "ad_click"), batch=1, attempt=2)
    run.step(log_of([first, again]))
    run.step(log_of([again], first=2))
    assert [step.replays for step in run.steps] == [[Replay(batch_id(1), 0, 2)]] * 2
    assert not run.steps[1].ledger
    assert len(run.rows("ad_clicks")) == 1


def test_a_block_older_than_the_dedup_window_is_refused_with_an_alarm() -> None:
    run = new_run().feed(log_of([tick(s0=7 * DAY_S), block(event("e1", "ad_click", at_s=0), batch=1),
                                 block(event("e2", "ad_click", at_s=-0.001), batch=2)]))  # fmt: skip
    [alarm] = [alarm for step in run.steps for alarm in step.alarms]
    assert batch_id(2) in alarm
    assert [row["event_id"] for row in run.rows("ad_clicks")] == ["e1"]
    assert {batch for batch, *_ in ledger_of(run.steps)} == {batch_id(1)}


def test_a_block_of_another_epoch_is_no_dead_letter_but_a_broken_history() -> None:
    with pytest.raises(EpochMismatch):
        new_run().step(log_of([block(event("e1"), epoch=2)]))


@pytest.mark.parametrize("states_size", [True, False])
def test_a_frame_is_never_opened_beyond_its_limit(states_size: bool) -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=states_size)
    assert len(open_frame(compressor.compress(b"a" * MAX_RAW_BYTES))) == MAX_RAW_BYTES
    with pytest.raises(FrameInvalid):
        open_frame(compressor.compress(b"a" * (MAX_RAW_BYTES + 1)))
    with pytest.raises(FrameInvalid):
        open_frame(compressor.compress(bytes(200_000_000)))


@pytest.mark.parametrize(("line", "reason"), [
    (b"nonsense", "line"),
    (b"[]", "line"),
    (b"{}", ""),
    (as_line({**event("odd"), "ad_slot": 1.5, "event_type": "ad_click"}), "ad_slot"),
    (as_line({**event("odd"), "received_at": BASE_MS - 1}), "received_at"),
    (as_line({**event("odd"), "event_type": "ad_click", "revenue_micros": 2**63}), "revenue_micros"),
    (as_line(event("odd")).replace(b'"v1"', b"null"), "page_view_id"),
    (as_line(event("odd")).replace(b'"page_view"', b'"no type"'), "event_type"),
    (as_line({**event("odd"), "event_type": "other", "occurred_at": -1}), "event_type"),
])  # fmt: skip
def test_what_is_no_stored_line_is_rejected_alone(line: bytes, reason: str) -> None:
    run = new_run().feed(log_of([block(event("a", "ad_click"), line, event("c", "ad_click"), received_at_ms=BASE_MS)]))
    assert [row["event_id"] for row in run.rows("ad_clicks")] == ["a", "c"]
    [row] = run.rows("rejected")
    assert (row["kind"], row["line"]) == ("malformed", 1)
    assert row["reason"].startswith(reason)
    assert row["reason"]


def test_lone_surrogates_and_nul_do_not_pass_in_silence() -> None:
    line = as_line(event("e1", "redirect", view=None)).replace(b'"e1"', b'"e1","visitor_id":"a\\u0000b\\ud800c"')
    run = new_run().feed(log_of([block(line, event("e2", "redirect"))]))
    values = {row["event_id"]: row["visitor_id"] for row in run.rows("redirects")}
    assert values.get("e1", "rejected") in ("a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c", "rejected")
    assert len(ledger_of(run.steps)) == 2


class Fragile(Enricher):
    """Raises on one visitor, as a defect would."""

    def campaign(self, campaign_id: str | None):  # type: ignore[no-untyped-def]
        if campaign_id == "boom":
            raise ZeroDivisionError
        return super().campaign(campaign_id)


def test_a_line_that_raises_is_rejected_when_taken_carefully() -> None:
    run = Run(etl_rules(), Fragile({}, {}))
    log = log_of([block(event("a", "redirect"), event("b", "redirect", campaign_id="boom"), event("f", campaign_id="boom"),
                        second("s"), event("c", "redirect"))])  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        run.step(log)
    run.step(log, careful=True)
    run.step(log_of([tick(s0=300)], first=1))
    assert [row["event_id"] for row in run.rows("redirects")] == ["a", "c"]
    assert {row["line"]: row["reason"] for row in run.rows("rejected")} == dict.fromkeys(
        (1, 2), "processing: ZeroDivisionError"
    )
    assert set(ledger_of(run.steps).values()) == {1}
    assert len(ledger_of(run.steps)) == 5


class Failing(Enricher):
    """Raises what it is told to at one campaign."""

    failure: BaseException

    def campaign(self, campaign_id: str | None) -> Any:
        if campaign_id == "boom":
            raise self.failure
        return super().campaign(campaign_id)


def failing(failure: BaseException) -> Run:
    enricher = Failing({}, {})
    enricher.failure = failure
    return Run(etl_rules(), enricher)


def test_a_line_that_makes_polars_panic_is_rejected_like_any_other() -> None:
    run = failing(pl.exceptions.PanicException("index out of bounds"))
    run.step(log_of([block(event("a", "redirect"), event("b", "redirect", campaign_id="boom"))]), careful=True)
    assert [row["event_id"] for row in run.rows("redirects")] == ["a"]
    assert [row["reason"] for row in run.rows("rejected")] == ["processing: PanicException"]


def test_running_out_of_memory_is_no_lines_fault() -> None:
    with pytest.raises(MemoryError):
        failing(MemoryError()).step(log_of([block(event("b", "redirect", campaign_id="boom"))]), careful=True)


def test_payloads_are_cut_at_a_character() -> None:
    [row] = new_run().feed(log_of([block(malformed(payload="ü" * 3000))])).rows("rejected")
    assert row["payload"] == "ü" * 2048


def test_a_gap_is_declared_in_a_step() -> None:
    run = new_run()
    run.step(log_of([tick(s0=5)]))
    decision = run.etl.declare_gap(10, 2, 0)
    assert (decision.message.source_first, decision.message.source_last) == (1, 9)
    assert "1 to 9" in decision.message.alarms[0]
    run.etl.advance(decision.message)
    assert (run.etl.applied_source, run.etl.stream_time_ms) == (9, at_ms(5))


def test_time_goes_on_behind_a_gap_that_took_a_shards_end() -> None:
    run = new_run()
    run.step(log_of([tick(s0=5, s1=5)]))
    run.etl.advance(run.etl.declare_gap(10, 2, 0).message)  # END of s0 was in it
    run.step(log_of([tick(s1=9)], first=10))
    assert run.etl.stream_time_ms == at_ms(9)


def test_a_step_that_leaves_something_over_claims_no_more_time_than_it_closed() -> None:
    """Whoever reads "all that is due has been emitted" from a loaded stream time takes what is left over for lost."""
    run = Run(etl_rules(message_bytes=64 * 1024 + 4000), enricher())
    run.step(log_of([block(*(event(f"f{n}", view=f"v{n}", at_s=n) for n in range(40)))]))
    step = run.step(log_of([tick(s0=500)], first=1))
    claims = [step.stream_time_ms]
    while run.etl.leftover:
        emitted = len(run.rows("page_views"))
        assert at_ms(120 + emitted - 1) <= claims[-1] < at_ms(120 + emitted), "all that is due before it, and no more"
        claims.append(run.step([]).stream_time_ms)
    assert len(claims) > 2
    assert claims == sorted(claims)
    assert claims[-1] == at_ms(500)


def test_messages_that_do_not_follow_are_refused() -> None:
    run = new_run()
    with pytest.raises(SourceGap):
        run.step(log_of([tick(s0=5)], first=1))
    with pytest.raises(SourceGap):
        run.step([*log_of([tick(s0=5)]), *log_of([tick(s0=6)], first=2)])


def test_what_is_due_closes_before_more_is_taken() -> None:
    rules = etl_rules(message_bytes=64 * 1024 + 4000)
    run = Run(rules, enricher())
    run.step(log_of([block(*(event(f"f{n}", view=f"v{n}") for n in range(20)))]))
    run.step(log_of([tick(s0=500)], first=1))
    assert run.etl.leftover
    waiting = log_of([tick(s0=600)], first=2)
    assert run.etl.take(waiting) == 0
    with pytest.raises(IllegalMove):
        run.etl.decide(waiting, 3, 1)
    while run.etl.leftover:
        assert run.step([]).emits
    assert len(run.rows("page_views")) == 20
    assert run.etl.take(waiting) == 1


def test_time_alone_presses_only_when_it_closes_something() -> None:
    run = new_run()
    assert run.etl.decide(log_of([block(event("f"))]), 1, -1).pressing
    run.step(log_of([block(event("f"))]))
    assert not run.etl.decide(log_of([tick(s0=5)], first=1), 2, 0).pressing
    assert run.etl.decide(log_of([tick(s0=500)], first=1), 2, 0).pressing


def test_a_step_takes_blocks_up_to_its_bytes_and_at_least_one() -> None:
    run = new_run(step_bytes=1000)
    log = log_of([block(event(f"e{n}", properties="x" * 400), batch=n) for n in range(5)])
    assert run.etl.take(log) == 1
    assert new_run(step_bytes=100).etl.take(log) == 1
    assert new_run().etl.take(log) == 5
    assert new_run().etl.take([]) == 0


def test_a_late_block_does_not_follow_a_move_of_time() -> None:
    late, fresh = block(event("a", at_s=5), batch=1), block(event("b", at_s=50), batch=2)
    run = new_run()
    assert run.etl.take(log_of([tick(s0=10), fresh])) == 1, "from no time to some is as far as time can move"
    run.step(log_of([tick(s0=1)]))
    assert run.etl.take(log_of([fresh, tick(s0=10), tick(s0=20), late], first=1)) == 3
    assert run.etl.take(log_of([tick(s0=10), fresh, late], first=1)) == 2
    run.step(log_of([tick(s0=10)], first=1))
    assert run.etl.take(log_of([late, fresh, tick(s0=20), fresh], first=2)) == 4


def test_nothing_follows_a_block_whose_events_are_due_on_arrival_but_what_is_on_time() -> None:
    run = new_run()
    run.step(log_of([tick(s0=100)]))
    overdue, late = block(event("a", at_s=89), batch=1), block(event("b", at_s=91), batch=2)
    on_time = block(event("c", at_s=100), batch=3)
    assert run.etl.take(log_of([overdue, on_time, late], first=1)) == 2
    assert run.etl.take(log_of([late, on_time, overdue], first=1)) == 3
