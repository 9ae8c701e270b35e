"""Browser, operating system, their versions, and the class of device in a user agent (rule J5).

ua-parser names browser and system; the class of device is ours. Package device-detector names classes too. It takes 20 ms
for a distinct agent, where ua-parser takes 0.05 ms, and it holds 90 MB.
"""

import re
from typing import Final, NamedTuple

import ua_parser

from app.core.enrich.bot_agents import MAX_JUDGED_CHARACTERS
from app.core.enrich.text import clean


class Device(NamedTuple):
    """The facts about a visitor's machine; None for each that the user agent does not show."""

    browser: str | None = None
    os: str | None = None
    device: str | None = None
    """`desktop`, `mobile`, `tablet`, `tv` or `console`."""
    browser_version: str | None = None
    os_version: str | None = None


_TV: Final = re.compile(
    r"Smart-?TV|SMART-TV|Smart TV|SmartHub|Apple ?TV|Google ?TV|Android ?TV|BRAVIA|; AFT|CrKey|HbbTV|NetCast|Web0S"
    r"|webOS\.TV|Roku|\bTV (?:Build|Safari)|VIERA|Viera|AQUOS(?:TV|Browser)|PhilipsTV|Hisense.*TV|\bMiTV|MIBOX|Vizio|VIDAA"
    r"|DTV\b|\bSTB\b|SetTopBox",
)
_CONSOLE: Final = re.compile(r"PlayStation|PLAYSTATION|Xbox|XBOX|Nintendo")
_TABLET: Final = re.compile(r"(?i:\btablet\b)(?! PC \d)|\biPad|\bKindle|\bSilk/(?!.*Mobile)|PlayBook|Xoom")
"""`Tablet PC 2.0` is a service of every Windows that has it installed, also of laptops without a touch screen."""
_MOBILE: Final = re.compile(
    r"Opera M(?:ini|obi)|\bMobile\b|J2ME|MIDP|Symbian|SymbOS|Series ?[346]0|BlackBerry|BB10|UCWEB|UP\.Browser|NetFront"
    r"|Maemo|MeeGo|Windows CE|Windows Phone|IEMobile|KAIOS|webOS/|iPhone|iPod",
)
_MARKS: Final = (("tv", _TV), ("console", _CONSOLE), ("tablet", _TABLET), ("mobile", _MOBILE))
"""The order matters: a television may say `Mobile`."""
_HARMONY: Final = re.compile(r"\((Phone|Tablet|PC|2in1|TV);\s*(OpenHarmony|HarmonyOS)(?:\s(\d[\d.]*))?")
_CLASS_OF_HARMONY: Final = {"Phone": "mobile", "Tablet": "tablet", "PC": "desktop", "2in1": "desktop", "TV": "tv"}
_CLASS_OF_OS: Final = {
    **dict.fromkeys(
        ("iOS", "Windows Phone", "Windows Mobile", "KaiOS", "BlackBerry OS", "Firefox OS", "Symbian OS"), "mobile"
    ),
    **dict.fromkeys(("BlackBerry Tablet OS",), "tablet"),
    **dict.fromkeys(("tvOS", "ATV OS X", "Tizen", "WebOS", "webOS", "Roku", "Chromecast", "FireOS TV", "FireHbbTV"), "tv"),
    **dict.fromkeys(("Chromecast Android", "Chromecast Fuchsia", "Chromecast Linux"), "tv"),
}
_DESKTOP: Final = re.compile(
    r"Windows NT|Win(?:dows )?(?:9[58]|XP|2000)|Macintosh|X11|CrOS|Linux (?:x86_64|i[3-6]86|amd64)|BSD|SunOS"
)
"""Marks of a desktop, whatever the name of its Linux or BSD."""
_DESKTOPS: Final = frozenset({
    "Windows", "Mac OS X", "Mac OS", "Chrome OS", "Linux", "Ubuntu", "Fedora", "Debian", "Gentoo", "Red Hat", "SUSE",
    "Arch Linux", "Mint", "Slackware", "Solaris", "FreeBSD", "OpenBSD", "NetBSD", "DragonFly",
})  # fmt: skip


def read_device(user_agent: str | None) -> Device:
    """Browser, operating system, their versions, and class of device of a user agent."""
    text = (user_agent or "")[:MAX_JUDGED_CHARACTERS]
    parsed = ua_parser.parse(text)
    seen = parsed.user_agent
    if seen and seen.family.endswith(" bot") and (rest := ua_parser.parse_user_agent(text.replace(seen.family, "", 1))):
        seen = rest  # the name was a telephone's; bots proper have one word
    browser, browser_version = (None, None) if seen is None else (clean(seen.family, 64), _version(seen))
    if harmony := _HARMONY.search(text):
        return Device(browser, harmony[2], _CLASS_OF_HARMONY[harmony[1]], browser_version, clean(harmony[3], 64))
    os, os_version = (None, None) if parsed.os is None else (clean(parsed.os.family, 64), _version(parsed.os))
    return Device(browser, os, _device_class(text, os), browser_version, os_version)


def _version(seen: ua_parser.UserAgent | ua_parser.OS) -> str | None:
    """The parts that the user agent names, as `18.3`."""
    return clean(".".join(part for part in (seen.major, seen.minor, seen.patch, seen.patch_minor) if part), 64)


def _device_class(text: str, os: str | None) -> str | None:
    """The class of device; an Android tablet is one that does not say `Mobile`."""
    marked = next((device for device, marks in _MARKS if marks.search(text)), None)
    if marked is not None:
        return marked
    if os == "Android":
        return "tablet"
    named = _CLASS_OF_OS.get(os or "")
    if named is None and (os in _DESKTOPS or _DESKTOP.search(text)):
        return "desktop"
    return named
