"""The traffic generator: shares, determinism, requests."""

import ast
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from app.local.traffic import schedule as schedule_module
from app.local.traffic.schedule import requests, schedule
from app.local.traffic.stories import Author, Channel, Timing

TIMING = Timing(window_s=90, grace_s=30, reorder_s=10, slack_s=2)
START_MS = 1_700_000_000_000


def lines(events: int = 20_000, seed: int = 1, rate: float = 500.0, run: str = "r1"):
    return list(schedule(Author(seed, run, START_MS, TIMING), events, rate))


@pytest.fixture(scope="module")
def many():
    return lines()


def test_the_generator_shares_no_code_with_the_decisions():
    folder = Path(schedule_module.__file__).parent
    imported = [
        node.module or ""
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
    ]
    assert imported
    assert not [name for name in imported if name.startswith(("app.core", "agents", "tables"))]


def test_exactly_as_many_lines_as_asked_in_order_of_time(many):
    assert len(many) == 20_000
    assert [line.at_s for line in many] == sorted(line.at_s for line in many)
    assert len(lines(7)) == 7


def test_one_seed_is_one_traffic_and_another_seed_another():
    assert lines(500) == lines(500)
    assert [line.body for line in lines(500)] != [line.body for line in lines(500, seed=2)]


def test_two_runs_share_no_id(many):
    other = {line.facts.event_id for line in lines(2000, run="r2") if line.facts}
    assert not other & {line.facts.event_id for line in many if line.facts}


def test_shares(many):
    share = {key: count / len(many) for key, count in _kinds(many).items()}
    assert share["page_view"] == pytest.approx(0.30, abs=0.02)
    assert share["engagement"] == pytest.approx(0.21, abs=0.02)
    assert share["ad_impression"] + share["ad_click"] == pytest.approx(0.30, abs=0.03)
    assert share["redirect"] == pytest.approx(0.05, abs=0.01)
    assert share["bot"] == pytest.approx(0.05, abs=0.01)
    assert share["malformed"] == pytest.approx(0.02, abs=0.01)
    assert share["again"] == pytest.approx(0.05, abs=0.01)


def _kinds(found) -> Counter[str]:
    kinds, seen = Counter[str](), set()
    for line in found:
        if line.facts is None:
            kinds["malformed"] += 1
        elif line.facts.event_id in seen:
            kinds["again"] += 1
        else:
            seen.add(line.facts.event_id)
            kinds["bot" if line.facts.is_bot else line.facts.event_type] += 1
    return kinds


def test_seconds_are_on_time_late_reordered_missing_and_without_a_first(many):
    first_at, second_at = {}, {}
    for line in many:
        if line.facts and not line.facts.is_bot:
            moments = {"page_view": first_at, "engagement": second_at}.get(line.facts.event_type)
            if moments is not None:
                moments.setdefault(line.facts.page_view_id, line.at_s)
    after = [at_s - first_at[view] for view, at_s in second_at.items() if view in first_at]
    on_time = [delta for delta in after if TIMING.window_s * 0.8 <= delta <= TIMING.window_s + TIMING.grace_s / 5]
    late = [delta for delta in after if delta > TIMING.window_s + TIMING.grace_s + 3]
    reordered = [delta for delta in after if -TIMING.reorder_s / 2 <= delta < 0]
    assert len(on_time) + len(late) + len(reordered) == len(after)
    assert len(on_time) > 0.85 * len(after)
    assert min(len(late), len(reordered)) > 0.02 * len(after)
    assert len(first_at.keys() - second_at.keys()) > 0.25 * len(first_at)
    assert second_at.keys() - first_at.keys()


def test_requests_carry_every_line_once_in_every_way(many):
    found = list(requests(iter(many), seed=1))
    assert Counter(line.body for request in found for line in request.lines) == Counter(line.body for line in many)
    assert {request.headers["Content-Type"] for request in found} == {
        "application/json", "application/x-ndjson", "text/plain",
    }  # fmt: skip
    assert {"Content-Encoding" in request.headers for request in found} == {True, False}
    assert {"X-Write-Key" in request.headers for request in found} == {True, False}
    assert any(len(request.lines) == 1 for request in found)
    assert all(len({line.channel for line in request.lines}) == 1 for request in found)


def test_a_request_waits_for_its_lines_and_not_much_longer(many):
    for request in requests(iter(many), seed=1):
        assert all(0 <= request.at_s - line.at_s <= schedule_module.TICK_S + 1e-9 for line in request.lines)


def test_bodies_are_what_their_type_says(many):
    for request in requests(iter(many), seed=1):
        body = gzip.decompress(request.body) if "Content-Encoding" in request.headers else request.body
        if request.headers["Content-Type"] == "application/json":
            value = json.loads(body)
            assert (len(value) if isinstance(value, list) else 1) == len(request.lines)
        else:
            kept = [part.removesuffix(b"\r") for part in body.split(b"\n")]
            assert [part for part in kept if part] == [line.body for line in request.lines]


def test_only_servers_name_addresses_and_agents(many):
    for line in many:
        if line.facts:
            event = json.loads(line.body)
            assert ("ip" in event) == ("user_agent" in event) == (line.channel is Channel.SERVER)
