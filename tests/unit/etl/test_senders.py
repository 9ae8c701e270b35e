"""A server that does not know its visitor's agent sends no bot; any other empty agent is one (rule J4)."""

from typing import Any

import pytest

from tests.builders.source_log import GOOGLEBOT, block, enricher, etl_rules, event, log_of, malformed
from tests.worlds.etl_run import Run

PAID = {"cost_micros": 250_000}


def run_of(*lines: dict[str, Any]) -> Run:
    return Run(etl_rules(), enricher()).feed(log_of([block(*lines)]))


@pytest.mark.parametrize("agent", [None, "", " "])
def test_a_servers_event_without_an_agent_is_no_bot(agent: str | None) -> None:
    run = run_of(event("a", "redirect", key_kind="server", user_agent=agent, ip=None, **PAID))
    assert run.rows("rejected") == []
    [row] = run.rows("redirects")
    assert (row["cost_micros"], row["key_kind"]) == (250_000, "server")
    assert (row["browser"], row["os"], row["device"], row["country"]) == (None, None, None, None)


@pytest.mark.parametrize("key_kind", [None, "browser"])
def test_any_other_empty_agent_is_a_bot_and_so_is_one_of_an_older_collector(key_kind: str | None) -> None:
    [row] = run_of(event("a", "redirect", key_kind=key_kind, user_agent=None, **PAID)).rows("rejected")
    assert (row["reason"], row["key_kind"]) == ("empty_user_agent", key_kind)


@pytest.mark.parametrize(
    ("more", "reason"),
    [({"webdriver": True, "user_agent": None}, "webdriver"), ({"user_agent": GOOGLEBOT}, "user_agent:Googlebot")],
)
def test_a_servers_bot_is_still_a_bot(more: dict[str, Any], reason: str) -> None:
    [row] = run_of(event("a", "redirect", key_kind="server", **{**PAID, **more})).rows("rejected")
    assert (row["reason"], row["key_kind"]) == (reason, "server")


def test_a_malformed_line_names_its_key_too() -> None:
    [row] = run_of(malformed(key_kind="server", ip=None, user_agent=None)).rows("rejected")
    assert (row["kind"], row["key_kind"], row["ip"], row["user_agent"]) == ("malformed", "server", None, None)
