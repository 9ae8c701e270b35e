"""The ETL's look-ups, from the files that the settings name and the tables that a worker holds (rules J4, J5)."""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final, TypeVar

from crawleruseragents import CRAWLER_USER_AGENTS_DATA
from publicsuffixlist import PublicSuffixList

from app.adapters.geo import location_lookup
from app.core.enrich.bot_agents import BotAgents, parse_agent_rules
from app.core.enrich.bots import CrawlerNetworks, parse_networks
from app.core.enrich.enrich import DimensionRows, Enricher, Lists
from app.core.enrich.referrers import ReferrerList, parse_sites
from app.errors import ConfigurationError
from app.settings import Settings

_SHIPPED: Final = files("app.core.enrich")
Entry = TypeVar("Entry")


def open_enricher(settings: Settings, articles: DimensionRows, campaigns: DimensionRows) -> Enricher:
    """The look-ups of one worker; `articles` and `campaigns` may change while they are used.

    Raises:
        ConfigurationError: a file is missing or not what its setting says.
    """
    lists = read_lists(settings.crawler_networks, settings.bot_agents)
    return Enricher(articles, campaigns, lists, location_lookup(settings))


def read_lists(crawler_networks: Path | None = None, bot_agents: Path | None = None) -> Lists:
    """The lists of this project, with those of the installation before them.

    Raises:
        ConfigurationError: a file of the installation is missing or not what its setting says.
    """
    networks = shipped(parse_networks, "crawler_networks.txt")
    networks = networks + added(parse_networks, crawler_networks, "INSTREAM_CRAWLER_NETWORKS")
    rules = added(parse_agent_rules, bot_agents, "INSTREAM_BOT_AGENTS") + shipped(parse_agent_rules, "bot_agents.txt")
    crawlers = (str(crawler["pattern"]) for crawler in CRAWLER_USER_AGENTS_DATA)
    return Lists(CrawlerNetworks(networks), BotAgents(rules, crawlers), shipped_referrers())


@cache
def shipped_referrers() -> ReferrerList:
    """The sites that this project knows. The answers are the same for everybody, so one list serves the process."""
    suffixes = PublicSuffixList()
    texts = (_SHIPPED.joinpath(name).read_text() for name in ("referrer_list.txt", "referrers.txt"))
    return ReferrerList(
        parse_sites(*texts),
        suffixes.privatesuffix,
        lambda host: suffixes.publicsuffix(host, accept_unknown=False) is not None,
    )


def shipped(parse: Callable[[str], list[Entry]], name: str) -> list[Entry]:
    """The entries of a file of this project."""
    return parse(_SHIPPED.joinpath(name).read_text())


def added(parse: Callable[[str], list[Entry]], path: Path | None, setting: str) -> list[Entry]:
    """The entries of a file of the installation; none if it has none."""
    if path is None:
        return []
    try:
        return parse(path.read_text())
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{setting} {path}: {exc}") from exc
