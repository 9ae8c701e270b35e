"""The place that a visit came from: its medium and its source (rule J5).

The domains are data: `referrer_list.txt` is a list that others keep, `referrers.txt` has ours, which goes before it.

    medium  Source: domain domain ...      the domain stands for itself and for every host below it
    name    Name: name ...                 the list's names of a source become ours

Referrers come from browsers and bots, so any text may be in them. No function here raises on any text.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from app.core.enrich.memo import Memo
from app.core.events.canonical_json import cut_text
from app.errors import ConfigurationError

MAX_SOURCE_BYTES: Final = 256
CACHED_VISITS: Final = 65_536
CACHED_HOSTS: Final = 8192
"""The hosts of URLs and referrers, each of which may have 4 KB."""
MEDIA: Final = ("search", "social", "email", "ai", "paid", "other")
"""The media that a list may name; `internal` is a visit from the same site."""


class Referrer(NamedTuple):
    """The place that a visit came from; both None without a referrer."""

    medium: str | None = None
    """`search`, `social`, `email`, `ai`, `paid`, `internal` or `other`."""
    source: str | None = None
    """The service's name if it is known, else the host."""


NO_REFERRER: Final = Referrer()
_RENAMED: Final = "name"
_NO_PAGES: Final = frozenset({"about:blank", "about:srcdoc"})
"""Referrers that a browser names although no page led to the visit."""
_AUTHORITY: Final = re.compile(r"[^/?#\\]*//([^/?#\\]*)")
_BARE_HOST: Final = re.compile(r"(?:[^\s/?#\\:@.]+\.)+[^\s/?#\\:@.]+(?=$|[:/?#])")
"""A host at the start of a text that has no scheme."""
_AMP_HOST: Final = "cdn.ampproject.org"
_AMP_PATH: Final = re.compile(r"[^/]*//cdn\.ampproject\.org/[a-z]+/(?:s/)?([^/?#]+)")
_BY_BRAND: Final = MappingProxyType({
    "google": ("search", "Google"), "yandex": ("search", "Yandex"), "pinterest": ("social", "Pinterest"),
})  # fmt: skip
"""Services with a domain of their own in every country: google.de, google.co.uk."""
_SHARED_SUFFIXES: Final = frozenset({"co", "com", "org", "net", "gov", "edu", "ac"})
_MAIL_HOSTS: Final = frozenset({"mail", "email", "webmail", "e"})
_OTHER_HOSTS: Final = frozenset({
    "account", "accounts", "admin", "answers", "apps", "auth", "business", "calendar", "chat", "classroom", "cloud",
    "code", "console", "contacts", "developer", "developers", "disk", "docs", "drive", "edu", "feedback", "finance",
    "forms", "forum", "games", "groups", "help", "hangouts", "id", "keep", "learning", "lifestyle", "login", "maps",
    "market", "meet", "messenger", "money", "movies", "music", "myaccount", "news", "oauth", "passport", "photos", "play",
    "podcasts", "policies", "script", "security", "shopping", "signin", "site", "sites", "sport", "sports", "sso",
    "store", "studio", "support", "tasks", "translate", "travel", "tv", "weather", "workspace",
})  # fmt: skip
"""Labels below a search engine's domain where nobody searches: signing in, reading news, editing documents."""


class ReferrerList:
    """Known sites, and the rules beside them.

    Args:
        sites: domain -> (medium, source).
        site_of: The domain that a host's owner registered (news.daily.co.uk -> daily.co.uk); None for a public suffix.
        is_public: Does a host end in a suffix under which the public can register names?
    """

    def __init__(
        self,
        sites: Mapping[str, tuple[str, str]],
        site_of: Callable[[str], str | None],
        is_public: Callable[[str], bool],
    ) -> None:
        self._sites = sites
        self._site_of = site_of
        self._is_public = is_public
        self._host_of: Callable[[str], str] = Memo(host_of, CACHED_HOSTS).__getitem__
        self._came: Callable[[tuple[str, str]], Referrer] = Memo(self._classify, CACHED_VISITS).__getitem__

    def __call__(self, referrer: str | None, url: str | None) -> Referrer:
        """The medium and source of a visit to `url` that came from `referrer`."""
        if not referrer:
            return NO_REFERRER
        host = self._host_of(referrer)
        if not host or host == _AMP_HOST:
            if referrer in _NO_PAGES:
                return NO_REFERRER
            host = self._odd_host(referrer) or host
        return self._came((host, self._host_of(url) if url else ""))

    def _odd_host(self, referrer: str) -> str:
        """The host of a page in the AMP cache, or of a referrer without scheme; empty if the text is something else."""
        if found := _AMP_PATH.match(referrer):
            return _host(found[1])
        found = _BARE_HOST.match(referrer.strip())
        host = _host(found[0]) if found else ""
        return host if host in self._sites or self._is_public(host) else ""

    def _classify(self, visit: tuple[str, str]) -> Referrer:
        host, own = visit
        if not host:
            return Referrer("other", None)
        host = _published_by(host)
        source = cut_text(host, MAX_SOURCE_BYTES)
        if own and (host == own or self._same_site(host, own)):
            return Referrer("internal", source)
        labels = host.split(".")
        for start in range(len(labels)):
            known = self._sites.get(".".join(labels[start:]))
            if known:
                return _below(*known, labels[:start])
        above, brand = _split_brand(labels)
        known = _BY_BRAND.get(brand)
        return _below(*known, above) if known else Referrer("other", source)

    def _same_site(self, host: str, own: str) -> bool:
        if host[-1].isdigit() or ":" in host:
            return False  # an address
        site = self._site_of(host)
        return site is not None and site == self._site_of(own)


def _below(medium: str, source: str, labels: list[str]) -> Referrer:
    """The referrer of a host with these labels in front of a known domain."""
    if medium == "search" and labels:
        if labels[-1] in _MAIL_HOSTS:
            return Referrer("email", f"{source} Mail")
        if not _OTHER_HOSTS.isdisjoint(labels):
            return Referrer("other", source)
    return Referrer(medium, source)


def parse_sites(*texts: str) -> dict[str, tuple[str, str]]:
    """Domain -> (medium, source), from the texts of list files; a later file goes before an earlier one.

    Domains with a path are left out: a browser tells other sites the host alone.

    Raises:
        ConfigurationError: a line is neither an entry nor a comment; the text names the line.
    """
    sites: dict[str, tuple[str, str]] = {}
    names: dict[str, str] = {}
    for text in texts:
        for medium, source, words in _entries(text):
            if medium == _RENAMED:
                names |= dict.fromkeys(words.split(", "), source)
            else:
                hosts = [_host(word) for word in words.split() if "/" not in word]
                sites |= dict.fromkeys(hosts, (medium, source))
    return {domain: (medium, names.get(source, source)) for domain, (medium, source) in sites.items()}


def _entries(text: str) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        medium, _, rest = entry.partition(" ")
        source, colon, words = rest.partition(":")
        if medium not in (*MEDIA, _RENAMED) or not colon or not source.strip() or not words.strip():
            raise ConfigurationError(f"referrers, line {number}: {line.strip()!r} is not `medium Source: domain ...`")
        yield medium, source.strip(), words.strip()


def host_of(url: str) -> str:
    """The host in `url`, in lower case and ASCII, without user, port and a leading `www.`; empty if there is none."""
    found = _AUTHORITY.match(url)
    return _host(found[1]) if found else ""


def tells_host(referrer: str) -> bool:
    """Whether the host alone says where a visit with this referrer came from."""
    return host_of(referrer) not in {"", _AMP_HOST}


@lru_cache(maxsize=4096)
def full_host(authority: str) -> str:
    """The host in the part of a URL between `//` and the path, in lower case and ASCII, without user and port."""
    host = authority.rpartition("@")[2].lower()
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return ascii_host(host.strip(". "))


def _host(authority: str) -> str:
    return full_host(authority).removeprefix("www.")


def ascii_host(host: str) -> str:
    """A host as browsers send it (`xn--...`); as it is if it cannot be a host."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host


def _published_by(host: str) -> str:
    """The publisher of a page in the AMP cache: `www-daily-example.cdn.ampproject.org` has pages of www.daily.example."""
    name = host.removesuffix("." + _AMP_HOST)
    if name == host or not name or "." in name:
        return host
    return _host(name.replace("--", "\0").replace("-", ".").replace("\0", "-")) or host


def _split_brand(labels: list[str]) -> tuple[list[str], str]:
    """The label before the public suffix, and those before it: `news` and `google` in news.google.co.uk."""
    suffix = 2 if len(labels) > 2 and labels[-2] in _SHARED_SUFFIXES and len(labels[-1]) == 2 else 1
    return (labels[: -suffix - 1], labels[-suffix - 1]) if len(labels) > suffix else ([], "")
