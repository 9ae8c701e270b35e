"""Bugs in the join: who joins for a page view, what closes, and what is left over (rules E6, J2, J3)."""

from tests.mutants.mutant import Mutant

JOIN = ("tests/unit/etl/test_join.py", "tests/property/test_step_equals_oracle.py")

MUTANTS = (
    Mutant(
        "what a full message leaves over is forgotten",
        "E6",
        "app/core/join/window_close.py",
        "            if not close(frame, at, forced=forced):\n"
        "                return self._out._replace(closed=Due(*closed), more=True)\n",
        "            if not close(frame, at, forced=forced):\n"
        "                return self._out._replace(closed=Due(*max(closed, Due(stream_time_ms))), more=False)\n",
        JOIN,
    ),
    Mutant(
        "a second that is late joins all the same",
        "J3",
        "app/core/join/window_close.py",
        "        joined = found.pop(in_time - 1) if in_time else None\n",
        "        joined = found.pop() if found else None\n",
        JOIN,
    ),
    Mutant(
        "of several seconds in time the earliest joins",
        "J2",
        "app/core/join/window_close.py",
        "        joined = found.pop(in_time - 1) if in_time else None\n",
        "        joined = found.pop(0) if in_time else None\n",
        JOIN,
    ),
    Mutant(
        "all that is due closes in one message, whatever it costs",
        "E6",
        "app/core/join/window_close.py",
        "        return out if cost <= budget_bytes else None\n",
        "        return out\n",
        JOIN,
    ),
    Mutant(
        "a second is nobody's though its first is open",
        "J3",
        "app/core/join/window_close.py",
        "        return joining_key is None or time_in(joining_key) > frame.due_ms(at)\n",
        "        return True\n",
        JOIN,
    ),
    Mutant(
        "of several firsts the last one joins",
        "J2",
        "app/core/join/join.py",
        "            elif join_key < joining_key_in(joining_key) and (",
        "            elif join_key > joining_key_in(joining_key) and (",
        JOIN,
    ),
    Mutant(
        "a decided second is forgotten to be so",
        "J3",
        "app/core/join/window_state.py",
        "        mask = window.second_events[n].decided | BitMap(rows)\n",
        "        mask = BitMap(rows)\n",
        JOIN,
    ),
    Mutant(
        "a second does not see that its first is open",
        "J3",
        "app/core/join/join.py",
        "            return self._open.get(digest)\n",
        "            return None\n",
        JOIN,
    ),
    Mutant(
        "only a second whose first came before it is asked whether it met one",
        "J3",
        "app/core/join/window_close.py",
        "            if joining_key is None or joining_key > join_key\n",
        "            if joining_key is not None and joining_key <= join_key\n",
        JOIN,
    ),
    Mutant(
        "a second that is the only one joins however long before its first it came",
        "J2",
        "app/core/join/window_close.py",
        "        if len(found) == 1 and lower <= time_in(found[0].join_key) <= upper:  # nearly always\n",
        "        if len(found) == 1 and time_in(found[0].join_key) <= upper:  # nearly always\n",
        JOIN,
    ),
    Mutant(
        "a second that is the only one joins however late it is",
        "J3",
        "app/core/join/window_close.py",
        "        if len(found) == 1 and lower <= time_in(found[0].join_key) <= upper:  # nearly always\n",
        "        if len(found) == 1 and lower <= time_in(found[0].join_key):  # nearly always\n",
        JOIN,
    ),
    Mutant(
        "a decided second takes the others of its page view with it",
        "J3",
        "app/core/join/window.py",
        "            if len(left) > 1:  # seldom: it is one of several\n",
        "            if len(left) > 9:  # seldom: it is one of several\n",
        JOIN,
    ),
    Mutant(
        "of copies in one step only the last is looked at",
        "E7",
        "app/core/etl/dedup.py",
        "        suspects = sorted({*suspects, *again, *(last[digests[n]] for n in again)})\n",
        "        suspects = sorted({*suspects, *(last[digests[n]] for n in again)})\n",
        JOIN,
    ),
)
