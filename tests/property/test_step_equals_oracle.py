"""Any log, grouped into steps and restarted in any way, gives the oracle's rows and ledger (invariants I2, I6)."""

import random
import zlib
from collections import Counter
from functools import partial
from itertools import cycle
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.formats.flows import DUPLICATE, FLOWS, JOINED
from app.core.formats.source import SourceMessage
from app.core.rules import JoinRules
from tests.builders.source_log import BASE_MS, CHROME, GOOGLEBOT, IPHONE, block, end, etl_rules, log_of, tick
from tests.builders.visitors import ADDRESSES, CRAWLER_IP, ENRICHER, visitor_of
from tests.oracle import Bounds, Oracle
from tests.worlds.etl_run import Run, accepted, ledger_of, rows_of

BOUNDS = Bounds(window=9, grace=3, reorder=2, dedup=40)
RULES = partial(etl_rules, join=JoinRules(9, 3, 2), dedup_window_ms=40)
"""Milliseconds so few that random times meet every bound."""
# --- logs

ids = st.integers(0, 30).map(lambda n: f"e{n}")
kinds = st.sampled_from(["page_view"] * 3 + ["engagement"] * 4 + ["ad_impression", "ad_click", "redirect"])
rarely = st.sampled_from([False] * 9 + [True])
agents = st.sampled_from([CHROME] * 8 + [IPHONE] * 3 + [GOOGLEBOT, "HeadlessChrome/1.0", ""])
key_kinds = st.sampled_from([None, "browser", "server"])
addresses = st.sampled_from(["203.0.113.77"] * 8 + ["2001:db8:1:2::3"] * 4 + [CRAWLER_IP])
OWN = {
    "page_view": {
        "url": "https://news.example/a?b=1&UTM_Source=mail%20&utm_medium=m&utm_term=&utm_content=c&gclid=g1&utm_source=no",
        "article_id": "a1", "properties": '{"x":1}', "title": "T", "language": "de-CH", "time_zone": "Europe/Zurich",
        "session_id": "s1", "screen_width": 1920, "viewport_width": 0,
    },
    "engagement": {"dwell_ms": 7, "scroll_pct": 50, "engaged_ms": 6, "properties": '{"y":2}'},
    "ad_impression": {"ad_slot": 1, "revenue_micros": -5, "currency": "eur"},
    "ad_click": {"creative_id": "c1", "currency": "USD"},
    "redirect": {"cost_micros": 9, "currency": "gBp", "url": "https://News.Example:443?fbclid=f1&utm_term=t"},
}  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> dict[str, Any]:
    """A line whose times are relative: `received_at` counts from its block's moment."""
    received = draw(st.integers(0, 8))
    if draw(rarely):
        return {"malformed": "line: not JSON", "payload": "{ü 203.0.113.77", "received_at": received, "ip": "203.0.113.77"}
    kind = draw(kinds)
    line = {
        "event_id": draw(ids), "event_type": kind, "page_view_id": f"v{draw(st.integers(0, 3))}",
        "occurred_at": BASE_MS - draw(st.integers(0, 3)), "received_at": received, **OWN[kind],
    }  # fmt: skip
    if key_kind := draw(key_kinds):
        line["key_kind"] = key_kind
    if not draw(rarely):
        line["ip"] = draw(addresses)
    if draw(rarely):
        line["invalid_fields"] = "section: not a string"
    if agent := draw(agents):
        line["user_agent"] = agent
    if draw(rarely):
        line["webdriver"] = True
    return line


shards = st.sampled_from(["s0", "s1", "s2"])
ops = st.one_of(
    st.tuples(st.just("block"), st.integers(-20, 1), st.lists(lines(), min_size=1, max_size=6)),
    st.tuples(st.just("block"), st.integers(0, 1), st.lists(lines(), min_size=1, max_size=6)),
    st.tuples(st.just("replay"), st.integers(0, 9), st.integers(0, 2)),
    st.tuples(st.just("old"), st.integers(30, 60), st.lists(lines(), min_size=1, max_size=3)),
    st.tuples(st.just("tick"), st.dictionaries(shards, st.integers(-6, 4), min_size=1), st.integers(-3, 50)),
    st.tuples(st.just("parents"), shards, st.lists(shards, max_size=2)),
    st.tuples(st.just("end"), shards, st.none()),
    st.tuples(st.just("pass"), st.integers(1, 14), st.none()),
    st.tuples(st.just("jump"), st.integers(0, 16), st.none()),
)


def busy_script(seed: int, size: int) -> list[tuple[str, Any, Any]]:
    """A script of realistic mix, where most things happen: what `ops` rarely draws together."""
    rng = random.Random(seed)
    ids = [f"e{n}" for n in range(4 * size)]
    views = [f"v{n}" for n in range(rng.choice([1, 2, 4]))]

    def told() -> dict[str, Any]:
        received = rng.randint(0, rng.choice([0, 3, 9]))
        if rng.random() < 0.03:
            return {"malformed": "line: not JSON", "payload": "{", "received_at": received, "ip": "203.0.113.77"}
        kind = rng.choice(["page_view"] * 3 + ["engagement"] * 6 + ["ad_impression", "redirect"])
        agent = rng.choice([CHROME] * 20 + [IPHONE] * 10 + [GOOGLEBOT])
        fault = {"invalid_fields": f"section: {kind}"} if rng.random() < 0.2 else {}
        return {"event_id": rng.choice(ids), "event_type": kind, "page_view_id": rng.choice(views), "occurred_at": BASE_MS,
                "received_at": received, "ip": "203.0.113.77", "user_agent": agent, "key_kind": "server", **OWN[kind],
                **fault}  # fmt: skip

    def op() -> tuple[str, Any, Any]:  # noqa: PLR0911  (one a case)
        match rng.choices(["block", "late", "replay", "old", "tick", "parents", "end", "pass", "jump"],
                          [10, 4, 1, 0.5, 5, 0.3, 0.2, 6, 4])[0]:  # fmt: skip
            case "block":
                return "block", rng.randint(0, 1), [told() for _ in range(rng.randint(1, 5))]
            case "late":
                return "block", rng.randint(-20, 0), [told() for _ in range(rng.randint(1, 5))]
            case "replay":
                return "replay", rng.randint(0, 9), 1
            case "old":
                return "old", rng.randint(30, 60), [told()]
            case "tick":
                return "tick", {shard: rng.randint(-4, 3) for shard in ("s0", "s1") if rng.random() < 0.8} or {"s0": 0}, 50
            case "parents":
                return "parents", "s2", ["s0"]
            case "end":
                return "end", rng.choice(["s0", "s2"]), None
            case "pass":
                return "pass", rng.randint(1, 4), None
            case _:
                return "jump", rng.randint(0, 8), None

    return [op() for _ in range(size)]


scripts = st.one_of(st.lists(ops, max_size=40), *[st.builds(busy_script, st.integers(0, 2**32), st.integers(1, 60))] * 3)


def write_log(script: list[tuple[str, Any, Any]]) -> list[SourceMessage]:
    """The log that a script tells; time passes only by `pass` and `jump`."""
    clock, batch = 100, 0
    values: list[tuple[bytes, int]] = []
    blocks: list[tuple[tuple[dict[str, Any], ...], int]] = []

    def put_block(moment: int, told: list[dict[str, Any]]) -> None:
        nonlocal batch
        batch += 1
        real = tuple({**line, "received_at": BASE_MS + moment + line["received_at"]} for line in told)
        blocks.append((real, batch))
        values.append((block(*real, batch=batch, first_line=batch % 3), 2**62))

    for op, what, more in script:
        if op == "block":
            put_block(clock + what, more)
        elif op == "old":
            put_block(max(0, clock - what), more)
        elif op == "replay" and blocks:
            real, number = blocks[what % len(blocks)]
            values.append((block(*real, batch=number, first_line=number % 3, attempt=more), 2**62))
        elif op == "tick":
            marks = {shard: (clock + ahead) / 1000 for shard, ahead in what.items()}
            values.append((tick(**marks), BASE_MS + clock + more))
        elif op == "parents":
            values.append((tick({what: more}), 2**62))
        elif op == "end":
            values.append((end(what), 2**62))
        elif op == "pass":
            clock += what
        elif op == "jump":
            clock += what
            values.append((tick(s0=clock / 1000, s1=clock / 1000, s2=clock / 1000), 2**62))
    return [SourceMessage(n, append, value) for n, (value, append) in enumerate(values)]


ENDING = [tick(late=10.0), *(end(shard) for shard in ("s0", "s1", "s2"))]
"""Closes whatever is open."""


def assert_same(run: Run, oracle: Oracle) -> None:
    for flow in FLOWS:
        assert accepted(run.rows(flow.name)) == accepted(oracle.rows.get(flow.name, [])), flow.name
    assert ledger_of(run.steps) == oracle.ledger
    assert set(oracle.ledger.values()) <= {1}
    replays = [(r.batch_id, r.block, r.attempt) for step in run.steps for r in step.replays]
    assert replays == oracle.replays
    assert sum(len(step.alarms) for step in run.steps) == oracle.refused
    assert run.etl.stream_time_ms == oracle.now


def judge(log: list[SourceMessage]) -> Oracle:
    return Oracle(BOUNDS, visitor_of, ADDRESSES.__getitem__).run(log)


def index_of(run: Run) -> tuple[Any, ...]:
    """What the core keeps in memory, in comparable form."""
    if run.rules.kernels:  # tests/property/test_window_arrays.py compares the arrays with this index
        return run.etl._meta, run.etl.leftover
    window = run.etl._path._window
    waiting = {digest: sorted(found) for digest, found in window.waiting.items()}
    frames = [(f.kind, f.number, f.at, f.join_keys, f.span_ms, sorted(f.decided))
              for kept in (window.first_events, window.second_events) for f in kept.values()]  # fmt: skip
    return run.etl._meta, window.order, window.joining_keys, waiting, window.closed, sorted(frames)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    script=scripts,
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    restarts=st.lists(st.booleans(), min_size=1, max_size=5),
    room=st.sampled_from([300, 2_000, 16_000_000]),
    closes=st.booleans(),
    kernels=st.booleans(),
)
def test_any_grouping_and_any_restart_give_the_oracles_rows(
    script: list[Any], cuts: list[int], restarts: list[bool], room: int, *, closes: bool, kernels: bool
) -> None:
    log = write_log(script)
    if closes:
        log += log_of(ENDING, first=len(log))
    rules = RULES(message_bytes=64 * 1024 + room, kernels=kernels)
    run, at, restart = Run(rules, ENRICHER), 0, cycle(restarts)
    sizes = cycle(cuts)
    while run.etl.leftover or at < len(log):
        waiting = [] if run.etl.leftover else log[at : at + next(sizes)]
        taken = run.etl.take(waiting)
        assert (taken == 0) == (not waiting)
        first_try = run.etl.decide(waiting[:taken], len(run.steps) + 1, len(run.steps) - 1)
        step = run.step(waiting[:taken])
        assert step == first_try.message, "deciding changed something, or is not deterministic"
        assert (step.source_first, step.source_last) == (at, at + taken - 1)
        at += taken
        kept = index_of(run)
        if next(restart):
            run.restart()
            assert index_of(run) == kept, "the index kept by steps is not the one that the tables give"
    oracle = judge(log)
    assert_same(run, oracle)
    assert not closes or not (oracle.pending or oracle.undecided)
    assert closes or kernels or len(run.etl._path._window.first_events) <= len(oracle.pending)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(script=scripts, kernels=st.booleans())
def test_line_by_line_gives_the_same_rows(script: list[Any], kernels: bool) -> None:
    log = write_log(script) + log_of(ENDING, first=10_000)
    log = [message._replace(offset=n) for n, message in enumerate(log)]
    run, at = Run(RULES(kernels=kernels), ENRICHER), 0
    while at < len(log):
        taken = run.etl.take(log[at:])
        run.step(log[at : at + taken], careful=True)
        at += taken
    assert_same(run, judge(log))


def on_time_log(told: list[list[dict[str, Any]]], partitions: int, partition: int) -> list[SourceMessage]:
    """Blocks that never are behind stream time, the lines spread over partitions by page view; a tick after each batch."""
    values, clock = [], 0
    for batch, group in enumerate(told, 1):
        mine = [
            {**line, "received_at": BASE_MS + clock + line["received_at"]}
            for line in group
            if zlib.crc32(line.get("page_view_id", "").encode()) % partitions == partition
        ]
        if mine:
            values.append(block(*mine, batch=batch, partition=partition, received_at_ms=BASE_MS + clock))
        clock += 5
        values.append(tick(s0=clock / 1000))
    return log_of([*values, *ENDING])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(told=st.lists(st.lists(lines(), max_size=8), max_size=8), partitions=st.integers(2, 4))
def test_rows_do_not_depend_on_the_number_of_partitions(told: list[Any], partitions: int) -> None:
    # The first copy in the log counts: copies of one event share its page view, hence its partition.
    for group in told:
        for line in group:
            if "event_id" in line:
                line["event_id"] += line["page_view_id"]
    place = frozenset({"batch_id", "line"})
    alone = Run(RULES(), ENRICHER).feed(on_time_log(told, 1, 0))
    spread = [Run(RULES(kernels=True), ENRICHER, p).feed(on_time_log(told, partitions, p)) for p in range(partitions)]
    for flow in FLOWS:
        apart: Counter[Any] = sum((accepted(rows_of(run.steps, flow.name), place) for run in spread), Counter())
        assert apart == accepted(alone.rows(flow.name), place), flow.name


def test_the_logs_meet_every_rule() -> None:
    seen: Counter[str] = Counter()
    for seed in range(60):
        oracle = judge(write_log(busy_script(seed, 50)))
        seen.update(outcome for _, _, outcome in oracle.ledger)
        seen.update(row["reason"] for row in oracle.rows.get("engagements", []))
        seen.update(replay=len(oracle.replays), refused=oracle.refused)
    made = ("page_views", "ad_impressions", "redirects", "engagements", "rejected", JOINED, DUPLICATE)
    assert all(seen[name] > 5 for name in (*made, "extra", "late", "no_first", "replay", "refused")), seen


def test_the_oracle_can_disagree() -> None:
    paid = {
        "event_id": "e1", "event_type": "redirect", "occurred_at": BASE_MS, "received_at": BASE_MS, "ip": "203.0.113.77",
        "user_agent": CHROME, **OWN["redirect"],
    }  # fmt: skip
    log = log_of([block(paid)])
    run, oracle = Run(RULES(), ENRICHER).feed(log), judge(log)
    assert_same(run, oracle)
    oracle.rows["redirects"][0]["cost_micros"] = 10
    assert accepted(run.rows("redirects")) != accepted(oracle.rows["redirects"])
