"""Bots by their user agent: our rules, and the lists that others keep (rule J4)."""

import gzip
from pathlib import Path

import pytest
from crawleruseragents import CRAWLER_USER_AGENTS_DATA

from app.adapters.enrichment import read_lists
from app.core.enrich.bot_agents import BotAgents, parse_agent_rules
from app.errors import ConfigurationError
from tests.builders.source_log import CHROME, GOOGLEBOT, IPHONE
from tests.lists.update import CRAWLERS, PEOPLE

BOTS = read_lists().bots
LINUX = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.7444.162 Safari/537.36"
WEBVIEW = "AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/142.0.7444.142 Mobile Safari/537.36"


@pytest.mark.parametrize(("user_agent", "rule"), [
    (CHROME, None),
    (IPHONE, None),
    (None, "empty_user_agent"),
    ("  ", "empty_user_agent"),
    (GOOGLEBOT, "user_agent:Googlebot"),
    (CHROME.replace("Chrome/", "HeadlessChrome/"), "user_agent:Headless"),
    ("curl/8.5.0", "user_agent:curl"),
    ("python-requests/2.32", "user_agent:python-requests"),
])  # fmt: skip
def test_user_agents(user_agent: str | None, rule: str | None) -> None:
    assert BOTS.judge(user_agent) == rule


@pytest.mark.parametrize(("user_agent", "rule"), [
    ("Mozilla/5.0", "user_agent:bare-mozilla"),
    ("Mozilla/5.0 (compatible)", "user_agent:bare-mozilla"),
    ("Mozilla/5.0 (linux) AppleWebKit/537.36 (KHTML, like Gecko) jsdom/22.1.0", "user_agent:jsdom"),
    (LINUX + " Playwright/1.40.0", "user_agent:Playwright"),
    (LINUX.replace("Chrome/", "Cypress/13.6.0 Chrome/"), "user_agent:Cypress"),
    (LINUX + " NewRelicSynthetics/1.0", "user_agent:NewRelic"),
    (LINUX + " (ThousandEyes Agent)", "user_agent:ThousandEyes"),
    (LINUX + " DatadogSynthetics", "user_agent:Synthetics"),
    (LINUX.replace("like Gecko)", "like Gecko; compatible; GoogleAgent-Mariner)"), "user_agent:GoogleAgent"),
    ("Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Perplexity-User/1.0; +https://perplexity.ai/perplexity-user)",
     "user_agent:Perplexity"),
    ("Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; ChatGPT-User/1.0; +https://openai.com/bot",
     "user_agent:ChatGPT"),
    ("Mozilla/5.0 (compatible; meta-externalagent/1.1)", "user_agent:Meta"),
    ("Mozilla/5.0 (compatible; meta-externalfetcher/1.1)", "user_agent:Meta"),
    ("Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Amazonbot/0.1; +https://developer.amazon.com/support/amazonbot)"
     " Chrome/119.0.6045.214 Safari/537.36", "user_agent:Amazonbot"),
    ("SomethingNew/1.0 (+https://new.example/about)", "user_agent:+https://new.example/about"),
])  # fmt: skip
def test_programs_that_run_pages_are_bots(user_agent: str, rule: str) -> None:
    assert BOTS.judge(user_agent) == rule


@pytest.mark.parametrize("user_agent", [
    f"Mozilla/5.0 (Linux; Android 7.0; M bot 60 Build/NRD90M; wv) {WEBVIEW}",
    "Opera/9.70 (Linux armv7l ; U; turbotabbee/TSV2.0/1.02Q; fr) Presto/2.2",
    f"Mozilla/5.0 (Linux; Android 5.1; FEVER Build/LMY47D; wv) {WEBVIEW}",
    f"Mozilla/5.0 (Linux; Android 14; I2208 Build/UP1A.231005.007; wv) {WEBVIEW} acme-flutter store-checkout",
    f"Mozilla/5.0 (Linux; Android 15; CPH2557 Build/AP3A.240617.008; wv) {WEBVIEW} Instagram 406.0.0.58.159 Android (35/15)",
    f"Mozilla/5.0 (Linux; Android 16; Pixel 10 Pro XL Build/CP1A.260305.018; wv) {WEBVIEW} MetaIAB Facebook",
    f"Mozilla/5.0 (Linux; Android 7.1.2; G011A Build/N2G48H; wv) {WEBVIEW} Viber/11.9.5.8",
    f"Mozilla/5.0 (Linux; Android 7.0; SM-G950F Build/NRD90M; wv) {WEBVIEW} Blackboard/3.6.0",
    f"Mozilla/5.0 (Linux; Android 5.0.2; HTC Butterfly 2 Build/LRX22G) {WEBVIEW}",
])  # fmt: skip
def test_people_with_a_bots_word_are_none(user_agent: str) -> None:
    assert BOTS.judge(user_agent) is None
    assert BOTS.judge(user_agent + " Googlebot/2.1"), "the rest of the agent is still judged"


def test_endless_user_agents_cost_no_endless_time() -> None:
    assert BOTS.judge("a" * 100_000) is None


def named(agents: list[str]) -> float:
    """The share of agents that are named bots."""
    return sum(BOTS.judge(agent) is not None for agent in agents) / len(agents)


def test_the_lists_own_examples_are_bots() -> None:
    """The rest, not one in a hundred, are agents of people in our eyes: mail programs, browsers inside apps."""
    crawlerdetect = gzip.decompress(CRAWLERS.read_bytes()).decode().split("\n")
    crawler_user_agents = [example for crawler in CRAWLER_USER_AGENTS_DATA for example in crawler.get("instances", ())]
    assert len(crawlerdetect) > 3000
    assert len(crawler_user_agents) > 2000
    assert named(crawlerdetect) >= 0.99
    assert named(crawler_user_agents) >= 0.99


def test_browsers_of_people_are_no_bots() -> None:
    people = gzip.decompress(PEOPLE.read_bytes()).decode().split("\n")
    assert len(people) > 4000
    assert named(people) <= 0.005


def test_the_first_rule_names_the_bot_and_people_words_are_cut_out_for_the_lists_alone() -> None:
    bots = BotAgents(
        parse_agent_rules("bot one a.c # first\nbot two abc\npeople my ?spider\n# none\n"), ["evil\\/", "x[0-9]y"]
    )
    agents = ("abc", "my spider", "my spider abc", "spider", "evil/2", "evil", "x7y", "xy")
    assert [bots.judge(agent) for agent in agents] == [
        "user_agent:one", None, "user_agent:one", "user_agent:spider", "user_agent:evil/", None, "user_agent:x7y", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "robot a b", "bot a", "people", "bot a (", "people a*", "bot", "bot a (?i)b", r"bot a (b)\1", "bot a a{4294967296}",
        "bot a " + "(" * 2000 + "a" + ")" * 2000,
    ],
    ids=lambda line: line[:20],
)  # fmt: skip
def test_a_line_that_is_no_rule_is_named(line: str) -> None:
    with pytest.raises(ConfigurationError, match="line 2"):
        parse_agent_rules("# first\n" + line)


def test_an_installations_rules_go_before_ours(tmp_path: Path) -> None:
    path = tmp_path / "agents.txt"
    path.write_text("bot our-monitor DatadogSynthetics\npeople Reader-Bot")
    bots = read_lists(bot_agents=path).bots
    assert bots.judge(LINUX + " DatadogSynthetics") == "user_agent:our-monitor"
    assert BOTS.judge(LINUX + " Reader-Bot") is not None
    assert bots.judge(LINUX + " Reader-Bot") is None
    with pytest.raises(ConfigurationError, match="INSTREAM_BOT_AGENTS"):
        read_lists(bot_agents=tmp_path / "none.txt")
