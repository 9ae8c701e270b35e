"""The place that a visit came from, and how well the list that others keep is followed (rule J5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.adapters.enrichment import shipped_referrers
from app.core.enrich.referrers import Referrer, host_of, parse_sites
from app.errors import ConfigurationError
from tests.lists.update import REFERRERS

OURS = REFERRERS.with_name("referrers.txt")
referrer_of = shipped_referrers()


@pytest.mark.parametrize(("referrer", "expected"), [
    (None, (None, None)),
    ("", (None, None)),
    ("about:blank", (None, None)),
    ("about:client", ("other", None)),
    ("https://", ("other", None)),
    ("http://[", ("other", None)),
    ("story.html", ("other", None)),
    # search engines, and their hosts where nobody searches
    ("https://www.google.co.uk/search?q=a", ("search", "Google")),
    ("https://google.de", ("search", "Google")),
    ("https://www.google.com.vn/", ("search", "Google")),
    ("android-app://com.google.android.googlequicksearchbox/", ("search", "Google")),
    ("www.google.com/search", ("search", "Google")),
    ("google.com:443/search", ("search", "Google")),
    ("https://google.evil.example/", ("other", "google.evil.example")),
    ("https://google.github.io/", ("other", "google.github.io")),
    ("https://accounts.google.com/", ("other", "Google")),
    ("https://accounts.google.co.uk/", ("other", "Google")),
    ("https://classroom.google.com/", ("other", "Google")),
    ("https://drive.google.com/", ("other", "Google")),
    ("https://docs.google.com/document/d/1", ("other", "Google")),
    ("https://news.google.com/", ("other", "Google News")),
    ("https://ya.ru/", ("search", "Yandex")),
    ("https://yandex.kz/search", ("search", "Yandex")),
    ("https://m.baidu.com/", ("search", "Baidu")),
    ("https://search.yahoo.co.jp/", ("search", "Yahoo")),
    ("http://www.bing.com/", ("search", "Bing")),
    # mail
    ("https://mail.google.com/mail/u/0", ("email", "Gmail")),
    ("https://mail.yandex.ru/", ("email", "Yandex Mail")),
    ("https://mail.yandex.com.tr/", ("email", "Yandex Mail")),
    ("https://deref-gmx.net/", ("email", "GMX")),
    ("https://eur01.safelinks.protection.outlook.com/?url=x", ("email", "Outlook")),
    # social networks and their apps
    ("https://l.facebook.com/l.php?u=x", ("social", "Facebook")),
    ("https://t.co/abc", ("social", "X")),
    ("https://www.pinterest.co.uk/", ("social", "Pinterest")),
    ("https://pinterest.at/", ("social", "Pinterest")),
    ("android-app://com.pinterest/", ("social", "Pinterest")),
    ("android-app://com.twitter.android/", ("social", "X")),
    ("android-app://com.instagram.android/", ("social", "Instagram")),
    ("android-app://com.example.reader/", ("other", "com.example.reader")),
    ("https://notfacebook.com/", ("other", "notfacebook.com")),
    # assistants and paid recommendations
    ("https://gemini.google.com/", ("ai", "Gemini")),
    ("https://claude.ai/", ("ai", "Claude")),
    ("https://chatgpt.com/", ("ai", "ChatGPT")),
    ("https://www.perplexity.ai/", ("ai", "Perplexity")),
    ("https://paid.outbrain.com/", ("paid", "Outbrain")),
    ("https://trc.taboola.com/", ("paid", "Taboola")),
    # the own site
    ("http://www.news.example/b", ("internal", "news.example")),
    ("http://m.news.example:8080/b", ("internal", "m.news.example")),
    ("https://www-news-example.cdn.ampproject.org/c/s/www.news.example/a", ("internal", "news.example")),
    ("https://cdn.ampproject.org/c/s/www.news.example/a", ("internal", "news.example")),
    ("https://my--paper-org.cdn.ampproject.org/v/s/my-paper.org/a", ("other", "my-paper.org")),
    ("https://cdn.ampproject.org/", ("other", "cdn.ampproject.org")),
    ("https://-.cdn.ampproject.org/", ("other", "-.cdn.ampproject.org")),
    # odd addresses
    ("https://user:pw@blog.test/x", ("other", "blog.test")),
    ("https://[2001:db8::1]:8080/x", ("other", "2001:db8::1")),
    ("https://evil.test\\@news.example/", ("other", "evil.test")),
    ("http://www.retailer.test/category/20%-off-selected/", ("other", "retailer.test")),
    ("https://bücher.test/", ("other", "xn--bcher-kva.test")),
    ("https://xn--bcher-kva.test/", ("other", "xn--bcher-kva.test")),
])  # fmt: skip
def test_referrers(referrer: str | None, expected: tuple[str | None, str | None]) -> None:
    assert referrer_of(referrer, "https://news.example/a") == Referrer(*expected)


@pytest.mark.parametrize(("referrer", "url", "medium"), [
    ("https://news.daily.example/x", "https://sport.daily.example/y", "internal"),
    ("https://news.daily.co.uk/x", "https://sport.daily.co.uk/y", "internal"),
    ("https://daily.co.uk/x", "https://weekly.co.uk/y", "other"),
    ("https://other.blogspot.com/", "https://daily.blogspot.com/y", "other"),
    ("https://new.daily.blogspot.com/", "https://daily.blogspot.com/y", "internal"),
    ("http://10.0.3.4/", "http://10.1.3.4/y", "other"),
    ("http://localhost/", "http://localhost/y", "internal"),
    ("https://xn--bcher-kva.de/", "https://shop.bücher.de/", "internal"),
    ("https://daily.co.uk/x", None, "other"),
])  # fmt: skip
def test_sites_of_one_owner_are_internal(referrer: str, url: str | None, medium: str) -> None:
    assert referrer_of(referrer, url).medium == medium


def test_the_list_of_others_is_followed_but_where_ours_says_otherwise() -> None:
    """98 of 100 domains of the list get the list's medium; each of the others is named in our file, or lies below it."""
    entries = {
        word.lower(): line.partition(" ")[0]
        for line in REFERRERS.read_text().splitlines() if not line.startswith("#")
        for word in line.partition(": ")[2].split()
    }  # fmt: skip
    assert len(entries) > 2000
    other = {domain: medium for domain, medium in entries.items() if referrer_of("https://" + domain, None).medium != medium}
    ours = parse_sites(OURS.read_text())
    unexplained = {domain for domain in other if not any(domain == own or domain.endswith("." + own) for own in ours)}
    assert unexplained <= PATHS_OF_OTHER_MEDIA, unexplained - PATHS_OF_OTHER_MEDIA
    assert len(other) <= 0.02 * len(entries), other


PATHS_OF_OTHER_MEDIA = {"orange.fr/webmail", "apollo.lv/portal/search/", "inbox.com/search/"}
"""A browser tells other sites the host alone, and the host is known for something else."""


def test_ours_go_before_theirs_and_names_are_ours() -> None:
    theirs = "social Twitter: twitter.com a.example # words\nsearch Big: big.example big.example/mail"
    ours = "# none\n\nai Big AI: ai.big.example\nname X: Twitter, Tweet deck\nother Small: a.example"
    assert parse_sites(theirs, ours) == {
        "twitter.com": ("social", "X"), "a.example": ("other", "Small"), "big.example": ("search", "Big"),
        "ai.big.example": ("ai", "Big AI"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "line", ["search Bing bing.com", "seek Bing: bing.com", "search Bing:", "search : bing.com", "bing.com"]
)
def test_a_line_that_is_no_entry_is_named(line: str) -> None:
    with pytest.raises(ConfigurationError, match="line 2"):
        parse_sites("# first\n" + line)


@given(st.text(), st.text())
def test_no_address_raises(url: str, referrer: str) -> None:
    for odd in (url, "https://" + url, "https://" + url + ".cdn.ampproject.org/"):
        host_of(odd)
        assert len((referrer_of(odd + referrer, url).source or "").encode()) <= 256
        assert len((referrer_of(odd, odd).source or "").encode()) <= 256
