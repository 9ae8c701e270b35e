"""Bugs in the join by kernels: tables, overlay, order, masks and budget (rules E6, J2, J3)."""

from tests.mutants.mutant import Mutant

PATHS = ("tests/property/test_window_arrays.py",)
TABLES = ("tests/unit/kernels/test_join_tables.py", *PATHS)
ORDER = ("tests/unit/kernels/test_join_order.py", *PATHS)

MUTANTS = (
    Mutant(
        "the number of a page view is given again while an event names it",
        "J2",
        "app/kernels/join/window.py",
        "    if views[number, EVENTS] > 0:\n",
        "    if views[number, EVENTS] > 1:\n",
        TABLES,
    ),
    Mutant(
        "the room of a frame that is open is given to a new one",
        "J2",
        "app/core/join/open_tables.py",
        "        while self.head + more - begin > capacity:\n",
        "        while self.head + more - begin > 2 * capacity:\n",
        TABLES,
    ),
    Mutant(
        "an entry behind a removed one is not found any more",
        "J2",
        "app/kernels/join/window.py",
        "        if ((at - tag_in(places[at])) & mask) >= ((at - hole) & mask):\n",
        "        if ((at - tag_in(places[at])) & mask) > ((at - hole) & mask):\n",
        TABLES,
    ),
    Mutant(
        "page views with one half of the digest in common are one",
        "J2",
        "app/kernels/join/page_views.py",
        " == tag and step_views[found, HIGH] == high and step_views[found, LOW] == low:\n",
        " == tag or step_views[found, HIGH] == high:\n",
        TABLES,
    ),
    Mutant(
        "a closing first event does not see the step's own second events",
        "J2",
        "app/kernels/join/close.py",
        "    for side in range(2):\n",
        "    for side in range(1):\n",
        PATHS,
    ),
    Mutant(
        "the joining first event that a step brought is not applied",
        "J2",
        "app/kernels/join/window.py",
        "            views[view, FIRST] = placed[step_views[n, FIRST] - head]\n",
        "            views[view, FIRST] = max(views[view, FIRST], NONE)\n",
        PATHS,
    ),
    Mutant(
        "of two ids with one beginning the greater is the lesser",
        "J2",
        "app/kernels/join/layout.py",
        "            return -1 if one < two else 1\n",
        "            return 1 if one < two else -1\n",
        ORDER,
    ),
    Mutant(
        "the last row of a frame that is decided stays out of its mask",
        "J3",
        "app/core/join/close_arrays.py",
        "        mask = frame.decided | BitMap(rows[start:stop])\n",
        "        mask = frame.decided | BitMap(rows[start : max(stop - 1, start + 1)])\n",
        PATHS,
    ),
    Mutant(
        "everything that is due closes in one step, whatever it costs",
        "E6",
        "app/core/join/close_arrays.py",
        "        if cost + taken + left > budget_bytes:\n",
        "        if cost > budget_bytes:\n",
        PATHS,
    ),
    Mutant(
        "a step that is full says that all is closed",
        "E6",
        "app/core/join/close_arrays.py",
        "            end if more else max(end, Due(stream_time_ms)),\n",
        "            max(end, Due(stream_time_ms)),\n",
        PATHS,
    ),
    Mutant(
        "a second event that came with its first event is late, as an old block brings both",
        "J3",
        "app/kernels/join/admit.py",
        " or (now[block] > upper and step_views[view, BROUGHT] != block)\n",
        " or now[block] > upper\n",
        PATHS,
    ),
    Mutant(
        "deciding a step changes the window",
        "E6",
        "app/core/join/close_arrays.py",
        "        mask = frame.decided | BitMap(rows[start:stop])\n",
        "        mask = frame.decided\n        mask |= BitMap(rows[start:stop])\n",
        PATHS,
    ),
    Mutant(
        "a step whose changes were sent by another owner is taken as its own",
        "E6",
        "app/core/join/window_arrays.py",
        "            and {change.table: change for change in prepared.changes} == by_table\n",
        "",
        PATHS,
    ),
)
