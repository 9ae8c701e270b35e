"""Browser, system and class of device in a user agent (rule J5)."""

import pytest

from app.core.enrich.devices import read_device
from tests.builders.source_log import CHROME, IPHONE

WEBVIEW = "AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/83.0.4103.101 Mobile Safari/537.36"
BLINK = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0"


@pytest.mark.parametrize(("user_agent", "expected"), [
    (CHROME, ("Chrome", "Windows", "desktop", "126.0.0.0", "10")),
    (IPHONE, ("Mobile Safari", "iOS", "mobile", "17.5", "17.5")),
    ("Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile/15E148 Safari/604.1",
     ("Mobile Safari", "iOS", "tablet", "17.5", "17.5")),
    (f"Mozilla/5.0 (Linux; Android 14; Pixel 8) {BLINK} Mobile Safari/537.36",
     ("Chrome Mobile", "Android", "mobile", "126.0.0.0", "14")),
    (f"Mozilla/5.0 (Linux; Android 13; SM-X200) {BLINK} Safari/537.36",
     ("Chrome", "Android", "tablet", "126.0.0.0", "13")),
    (f"Mozilla/5.0 (Linux; Android 10; K) {BLINK} Safari/537.36", ("Chrome", "Android", "tablet", "126.0.0.0", "10")),
    (f"Mozilla/5.0 (Phone; OpenHarmony 5.0) {BLINK} Safari/537.36 ArkWeb/4.1.6.1 Mobile",
     ("Chrome", "OpenHarmony", "mobile", "126.0.0.0", "5.0")),
    (f"Mozilla/5.0 (Phone; OpenHarmony) {BLINK} Safari/537.36", ("Chrome", "OpenHarmony", "mobile", "126.0.0.0", None)),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
     ("Firefox", "Linux", "desktop", "140.0", None)),
    ("no browser at all", (None, None, None, None, None)),
    (None, (None, None, None, None, None)),
])  # fmt: skip
def test_user_agents(user_agent: str | None, expected: tuple[str | None, ...]) -> None:
    assert read_device(user_agent) == expected


@pytest.mark.parametrize(("user_agent", "os", "device"), [
    # phones that do not say so as others do
    ("Opera/9.80 (Android; Opera Mini/36.2.2254/119.132; U; id) Presto/2.12.423 Version/12.16", "Android", "mobile"),
    ("Opera/9.80 (J2ME/MIDP; Opera Mini/7.6.40234/37.8069; U; en) Presto/2.12.423 Version/12.16", None, "mobile"),
    (f"Mozilla/5.0 (Linux; Android 7.0; M bot 60 Build/NRD90M; wv) {WEBVIEW}", "Android", "mobile"),
    (f"Mozilla/5.0 (Phone; OpenHarmony 5.0) {BLINK} Safari/537.36 ArkWeb/4.1.6.1 Mobile", "OpenHarmony", "mobile"),
    (f"Mozilla/5.0 (Tablet; OpenHarmony 5.0) {BLINK} Safari/537.36 ArkWeb/4.1.6.1", "OpenHarmony", "tablet"),
    (f"Mozilla/5.0 (PC; OpenHarmony 5.0) {BLINK} Safari/537.36 ArkWeb/4.1.6.1", "OpenHarmony", "desktop"),
    ("Mozilla/5.0 (Mobile; Nokia_2780; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/3.1", "KaiOS", "mobile"),
    # televisions, also those that say `Mobile`
    ("Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) AppleWebKit/537.36 SamsungBrowser/3.0 TV Safari/537.36", "Tizen", "tv"),
    (f"Mozilla/5.0 (Linux; Android 10; 2020/2021 UHD Android TV Build/QTG3.201102.001; wv) {WEBVIEW}", "Android", "tv"),
    (f"Mozilla/5.0 (X11; Linux armv7l) {BLINK} Safari/537.36 CrKey/1.32.118652", "Chromecast Linux", "tv"),
    (f"Mozilla/5.0 (Web0S; Linux/SmartTV) {BLINK} Safari/537.36 WebAppManager", "Web0S", "tv"),
    ("Mozilla/5.0 (Linux; Android 9; AFTSSS Build/PS7299.2539N; wv) " + WEBVIEW, "Android", "tv"),
    # desktops, whatever the name of their system
    ("Mozilla/5.0 (X11; OpenBSD amd64; rv:130.0) Gecko/20100101 Firefox/130.0", "OpenBSD", "desktop"),
    ("Mozilla/5.0 (X11; FreeBSD amd64; rv:130.0) Gecko/20100101 Firefox/130.0", "FreeBSD", "desktop"),
    ("Mozilla/5.0 (X11; Gentoo; Linux x86_64; rv:45.0) Gecko/20100101 Firefox/45.0", "Gentoo", "desktop"),
    ("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) " + BLINK + " Safari/537.36", "Chrome OS", "desktop"),
    ("Mozilla/5.0 (Windows NT 6.1; Trident/7.0; SLCC2; .NET4.0E; Tablet PC 2.0; rv:11.0) like Gecko", "Windows", "desktop"),
    ("Mozilla/5.0 (PlayStation; PlayStation 5/6.50) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/15.4 Safari/605.1.15",
     None, "console"),
])  # fmt: skip
def test_systems_and_classes_of_device(user_agent: str, os: str | None, device: str) -> None:
    seen = read_device(user_agent)
    assert seen.device == device
    assert os is None or seen.os == os


@pytest.mark.parametrize(("user_agent", "browser"), [
    ("Mozilla/5.0 (Windows NT 6.1; Trident/7.0; Tablet PC 2.0; rv:11.0) like Gecko", "IE"),
    ("Opera/9.80 (J2ME/MIDP; Opera Mini/7.6.40234/37.8069; U; en) Presto/2.12.423 Version/12.16", "Opera Mini"),
    ("Mozilla/5.0 (X11; OpenBSD amd64; rv:130.0) Gecko/20100101 Firefox/130.0", "Firefox"),
    (f"Mozilla/5.0 (Linux; Android 7.0; M bot 60 Build/NRD90M; wv) {WEBVIEW}", "Chrome Mobile WebView"),
])  # fmt: skip
def test_browsers(user_agent: str, browser: str) -> None:
    assert read_device(user_agent).browser == browser
