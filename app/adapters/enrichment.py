"""The ETL's look-ups, from the files that the settings name and the tables that a worker holds (rules J4, J5)."""

from importlib.resources import files

from app.adapters.geo import location_lookup
from app.core.enrich.bots import CrawlerNetworks, parse_networks
from app.core.enrich.enrich import DimensionRows, Enricher
from app.errors import ConfigurationError
from app.settings import Settings


def open_enricher(settings: Settings, articles: DimensionRows, campaigns: DimensionRows) -> Enricher:
    """The look-ups of one worker; `articles` and `campaigns` may change while they are used.

    Raises:
        ConfigurationError: a file is missing or not what its setting says.
    """
    known = parse_networks(files("app.core.enrich").joinpath("crawler_networks.txt").read_text())
    if settings.crawler_networks is not None:
        try:
            known += parse_networks(settings.crawler_networks.read_text())
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"INSTREAM_CRAWLER_NETWORKS {settings.crawler_networks}: {exc}") from exc
    return Enricher(articles, campaigns, CrawlerNetworks(known), location_lookup(settings))
