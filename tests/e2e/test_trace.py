"""`instream trace` follows an event through the running stack, from its raw file to its row."""

import json
import os
import re
from typing import Any
from urllib.request import Request, urlopen

import pytest

from app.clock import SystemClock
from tests.builders.source_log import CHROME, GOOGLEBOT
from tests.e2e.live_stack import LiveStack
from tests.worlds.command_line import run_here
from tests.worlds.waiting import HANGS_S, eventually

pytestmark = pytest.mark.stack


def post(stack: LiveStack, *events: dict[str, Any] | str) -> str:
    """Post lines of a server's client. Returns: the id of their batch."""
    common = {"occurred_at": SystemClock().now_ms(), "user_agent": CHROME}
    body = "\n".join(event if isinstance(event, str) else json.dumps(common | event) for event in events).encode()
    headers = {"X-Write-Key": "demo-server", "Content-Type": "application/x-ndjson"}
    with urlopen(Request(f"{stack.stack.collector_url}/v1/events", body, headers), timeout=HANGS_S) as answer:
        batch_id: str = json.loads(answer.read())["batch_id"]
    return batch_id


def lines_indexed(stack: LiveStack) -> float:
    with urlopen(stack.stack.metrics["audit"], timeout=HANGS_S) as answer:
        found = re.search(r"^instream_index_lines_total (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0


def trace(*words: str) -> tuple[int, Any]:
    ran = run_here("trace", *words, "--json")
    return ran.returncode, json.loads(ran.stdout)


def test_an_event_is_traced_from_its_raw_file_to_its_row(stack: LiveStack) -> None:
    run = os.urandom(4).hex()
    pv, en, ad, bot, bad, lone = (f"{run}-{name}" for name in ("pv", "en", "ad", "bot", "bad", "lone"))
    view = {"page_view_id": f"{run}-v", "url": "https://news.example/"}
    first = post(
        stack, {"event_id": pv, "event_type": "page_view", **view}, {"event_id": ad, "event_type": "ad_click", **view},
        {"event_id": bot, "event_type": "ad_click", "page_view_id": f"{run}-b", "user_agent": GOOGLEBOT},
        {"event_id": bad, "event_type": "page_view"}, f'{{"{run}": "oops',
    )  # fmt: skip

    def are(fates: dict[str, str]) -> bool:
        code, answers = trace(*fates)
        assert (code, [each["id"] for each in answers]) == (0, list(fates))
        found.update({each["id"]: each for each in answers})
        return {each["id"]: each["fate"] for each in answers} == fates

    found: dict[str, Any] = {}
    eventually(lambda: are({pv: "waiting", ad: "ad_clicks"}), stack.story)
    assert re.fullmatch(r"waits for its second event until \d{4}-.*Z", found[pv]["reason"])
    assert (found[pv]["batch_id"], found[pv]["txn_id"], found[pv]["row_visible_at"]) == (first, None, None)
    second = post(
        stack, {"event_id": en, "event_type": "engagement", "page_view_id": f"{run}-v", "dwell_ms": 5},
        {"event_id": pv, "event_type": "page_view", **view},
        {"event_id": lone, "event_type": "engagement", "page_view_id": f"{run}-none"},
    )  # fmt: skip
    fates = {
        pv: "page_view", en: "joined", ad: "ad_clicks", lone: "engagement", bot: "rejected", bad: "rejected",
    }  # fmt: skip
    assert run_here("wait", "--timeout", str(HANGS_S)).returncode == 0
    assert are(fates), found
    reasons = {
        pv: f"row in page_views, with second event {en}", en: f"joined into {pv}", ad: "row in ad_clicks",
        lone: "no_first", bad: "page_view_id: required", bot: found[bot]["reason"],
    }  # fmt: skip
    for event_id, reason in reasons.items():
        answer = found[event_id]
        assert answer["reason"] == reason
        assert answer["raw_key"].endswith(f"/{answer['batch_id']}.ndjson.zst")
        assert answer["offset"] is not None
        assert answer["row_visible_at"] > answer["received_at"]
        assert f"/{answer['txn_id']}." in answer["file"]
    assert (found[bot]["kind"], "Googlebot" in found[bot]["reason"]) == ("bot", True)
    assert found[en]["joined_into"] == pv
    [own, copy] = found[pv]["lines"]
    assert (copy["fate"], copy["batch_id"], copy["duplicate_of"]) == (
        "duplicate", second, {"batch_id": first, "line": own["line"]},
    )  # fmt: skip

    code, of_view = trace("--page-view", f"{run}-v")
    assert (code, [line["fate"] for line in of_view["lines"] if line["batch_id"] == second]) == (0, ["joined", "duplicate"])
    code, malformed = trace("--text", f'"{run}"')
    assert (code, malformed["fate"], malformed["kind"], malformed["event_id"]) == (0, "rejected", "malformed", None)
    assert trace("--batch", first, "--line", str(malformed["line"]))[1]["reason"] == malformed["reason"]
    code, unknown = trace(f"{run}-never")  # of one id the answer is one object
    assert (code, unknown["found"], unknown["fate"], unknown["lines"]) == (3, False, "unknown", [])
    assert unknown["reason"].endswith("what was refused is not kept")

    words = run_here("trace", pv, f"{run}-never")
    assert words.returncode == 3
    assert f"{pv}  page_view: row in page_views, with second event {en}\n" in words.stdout
    assert f"and also   batch {second} line {copy['line']}" in words.stdout

    eventually(lambda: lines_indexed(stack) >= 8, stack.story)  # the audit's worker does it, every few seconds
    ran = run_here("index", "--json")
    report = json.loads(ran.stdout)
    assert (ran.returncode, report["damaged"], report["unreadable"]) == (0, 0, [])
    assert are(fates)
