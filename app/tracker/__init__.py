"""The tracker: the scripts that publishers load into their pages, as the collector serves them.

`app/tracker/source` has what people read and change. `app/tracker/built` has the same, minified: `make tracker-build` writes
it, and a test compares it with a fresh build. So a collector needs no minifier. README.md here is the page for publishers.
"""

import gzip
import hashlib
from pathlib import Path
from typing import Final, NamedTuple

BUILT: Final = Path(__file__).with_name("built")
EXAMPLE: Final = Path(__file__).with_name("example")
GZIP_LEVEL: Final = 9


class Script(NamedTuple):
    """A script, ready to be sent."""

    text: bytes
    zipped: bytes
    """The same in gzip: equal text gives equal bytes, for there is no time in it."""
    etag: str
    """Changes with the text."""


def read_script(name: str) -> Script:
    """A built script by its name, `t.js` or `t-ads.js`."""
    text = (BUILT / name).read_bytes()
    return Script(text, zipped(text), hashlib.sha256(text).hexdigest()[:16])


def zipped(text: bytes) -> bytes:
    """`text` in gzip, as it goes over the wire; its length is what the budget of a script bounds."""
    return gzip.compress(text, GZIP_LEVEL, mtime=0)
