"""`python -m app.tracker.build`: make the scripts in `app/tracker/built` from those in `app/tracker/source`.

The build needs no npm: the minifier is a Python wheel of extra `dev`. The build takes the files of a script in order, drops
comments, writes the values of `constants.js` in place of their names, and wraps everything into one function, so that a page
sees nothing of it. `const` becomes `let`, because the minifier then writes neighbouring declarations as one.
"""

import re
import sys
from pathlib import Path
from typing import Final

import minify

from app.tracker import BUILT, zipped

SOURCE: Final = Path(__file__).with_name("source")
CONSTANTS: Final = "constants.js"
SCRIPTS: Final = {
    "t.js": ("events.js", "queue.js", "engagement.js", "views.js", "ads.js", "start.js"),
    "t-ads.js": ("ad_servers.js",),
}
"""Each script, and the files that it is made of, in order; `start.js` runs what the others define."""
BUDGET_BYTES: Final = {"t.js": 2000, "t-ads.js": 600}
"""Most bytes of each script in gzip."""

_CONSTANT: Final = re.compile(r"^const ([A-Z][A-Z_]+) = (.+?);", re.MULTILINE)
_COMMENT: Final = re.compile(r"(?m)(?:^|(?<=\s))//.*$")
_UPPER: Final = re.compile(r"\b[A-Z][A-Z_]+\b")
_OF_JAVASCRIPT: Final = dict.fromkeys(("JSON", "POST", "URL"), "")
"""Names in capitals that are JavaScript's own, or text."""


def constants() -> dict[str, str]:
    """The values of `constants.js`, as JavaScript, by name."""
    return dict(_CONSTANT.findall((SOURCE / CONSTANTS).read_text()))


def whole(name: str) -> str:
    """A script as one function, not yet minified.

    Raises:
        ValueError: a name in capitals that no constant has.
    """
    values = constants()
    text = "\n".join(_COMMENT.sub("", (SOURCE / file).read_text()) for file in SCRIPTS[name])

    def value(match: re.Match[str]) -> str:
        if match[0] not in values | _OF_JAVASCRIPT:
            raise ValueError(f"{name}: {match[0]} is no constant of {CONSTANTS}")
        return values.get(match[0], match[0])

    return "(() => {" + re.sub(r"\bconst ", "let ", _UPPER.sub(value, text)) + "})()"


def build(name: str) -> bytes:
    """A script as it is served."""
    built: str = minify.string("application/javascript", whole(name))
    return built.encode()


def main() -> int:
    """Build every script; 1 if one is over its budget."""
    BUILT.mkdir(exist_ok=True)
    is_over = False
    for name, budget in BUDGET_BYTES.items():
        text = build(name)
        (BUILT / name).write_bytes(text)
        size = len(zipped(text))
        is_over |= size > budget
        sys.stdout.write(f"{name}: {len(text):,} bytes, {size:,} in gzip, of {budget:,}\n")
    return int(is_over)


if __name__ == "__main__":
    sys.exit(main())
