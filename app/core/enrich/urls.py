"""The facts in a page's URL and referrer: the campaign that paid for the visit, and the place it came from (rule J5).

URLs come from browsers and bots, so any text may be in them. No function here raises on any text.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

from app.core.events.canonical_json import cut_text, storable_text

MAX_CAMPAIGN_BYTES: Final = 128
MAX_SOURCE_BYTES: Final = 256


class Referrer(NamedTuple):
    """The place that a visit came from; both None without a referrer."""

    medium: str | None = None
    """`search`, `social`, `email`, `internal` or `other`."""
    source: str | None = None
    """The service's name if it is known, else the host."""


def _sites(medium: str, names: str) -> dict[str, tuple[str, str]]:
    """Domain -> (medium, source), from lines `Source: domain domain ...`; a domain stands for every host below it."""
    pairs = (line.strip().partition(":") for line in names.strip().splitlines())
    return {domain: (medium, source) for source, _, domains in pairs for domain in domains.split()}


_BY_DOMAIN: Final[Mapping[str, tuple[str, str]]] = MappingProxyType({
    **_sites("search", """
        Bing: bing.com
        DuckDuckGo: duckduckgo.com
        Yahoo: search.yahoo.com search.yahoo.co.jp
        Ecosia: ecosia.org
        Brave: search.brave.com
        Baidu: baidu.com
        Naver: search.naver.com
        Qwant: qwant.com
        Startpage: startpage.com
        Seznam: search.seznam.cz
        Sogou: sogou.com
        Kagi: kagi.com
        Perplexity: perplexity.ai
        Google: com.google.android.googlequicksearchbox
    """),
    **_sites("social", """
        Facebook: facebook.com fb.com fb.me com.facebook.katana
        Instagram: instagram.com
        Threads: threads.net threads.com
        X: twitter.com t.co x.com
        LinkedIn: linkedin.com lnkd.in com.linkedin.android
        Reddit: reddit.com redd.it
        Pinterest: pinterest.com pin.it
        YouTube: youtube.com youtu.be
        TikTok: tiktok.com
        WhatsApp: whatsapp.com wa.me
        Telegram: telegram.org t.me org.telegram.messenger
        Mastodon: mastodon.social
        Bluesky: bsky.app
        Snapchat: snapchat.com
        Tumblr: tumblr.com
        VK: vk.com
        Weibo: weibo.com
        Hacker News: news.ycombinator.com
    """),
    **_sites("email", """
        Gmail: mail.google.com com.google.android.gm
        Outlook: outlook.live.com outlook.office.com outlook.office365.com mail.live.com
        Yahoo Mail: mail.yahoo.com mail.yahoo.co.jp
        Proton Mail: mail.proton.me
        AOL Mail: mail.aol.com
        GMX: gmx.net gmx.com
        Zoho Mail: mail.zoho.com
        iCloud Mail: icloud.com
    """),
})  # fmt: skip
_BY_BRAND: Final = MappingProxyType({"google": ("search", "Google"), "yandex": ("search", "Yandex")})
"""Services with a domain of their own in every country: google.de, google.co.uk."""
_AUTHORITY: Final = re.compile(r"[^/?#\\]*//([^/?#\\]*)")
_CAMPAIGN: Final = re.compile(r"[^?#]*\?(?:[^#]*?&)?utm_campaign=([^&#]+)")
_SHARED_SUFFIXES: Final = frozenset({"co", "com", "org", "net", "gov", "edu", "ac"})


def campaign_of(url: str | None) -> str | None:
    """The value of `utm_campaign` in the query of `url`, percent-decoded; None if there is none."""
    if url is None or "utm_campaign=" not in url:
        return None
    found = _CAMPAIGN.match(url)
    return _decode(found[1]) if found else None


def referrer_of(referrer: str | None, url: str | None) -> Referrer:
    """The medium and source of a visit to `url` that came from `referrer`."""
    if not referrer:
        return Referrer()
    return _classify(host_of(referrer), host_of(url) if url else "")


def host_of(url: str) -> str:
    """The host in `url`, in lower case, without user, port and a leading `www.`; empty if there is none."""
    found = _AUTHORITY.match(url)
    return _host(found[1]) if found else ""


@lru_cache(maxsize=4096)
def _host(authority: str) -> str:
    host = authority.rpartition("@")[2].lower()
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return host.strip(". ").removeprefix("www.")


@lru_cache(maxsize=4096)
def _decode(value: str) -> str | None:
    return cut_text(storable_text(unquote_plus(value, errors="replace")), MAX_CAMPAIGN_BYTES) or None


@lru_cache(maxsize=16_384)
def _classify(host: str, own: str) -> Referrer:
    if not host:
        return Referrer("other", None)
    source = cut_text(host, MAX_SOURCE_BYTES)
    if own and (host == own or host.endswith("." + own) or own.endswith("." + host)):
        return Referrer("internal", source)
    labels = host.split(".")
    for start in range(len(labels)):
        known = _BY_DOMAIN.get(".".join(labels[start:]))
        if known:
            return Referrer(*known)
    known = _BY_BRAND.get(_brand(labels))
    return Referrer(*known) if known else Referrer("other", source)


def _brand(labels: list[str]) -> str:
    """The label before the public suffix: `google` in www.google.co.uk."""
    suffix = 2 if len(labels) > 2 and labels[-2] in _SHARED_SUFFIXES and len(labels[-1]) == 2 else 1
    return labels[-suffix - 1] if len(labels) > suffix else ""
