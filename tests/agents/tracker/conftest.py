"""These tests need a browser, which is no dependency of this project: without one they are not collected.

The tracker's decisions are tested without a browser, in `tests/unit/tracker`; `make tracker` says what is missing.
"""

from tests.worlds.chromium import find_chromium

collect_ignore_glob = [] if find_chromium() else ["test_*.py"]
