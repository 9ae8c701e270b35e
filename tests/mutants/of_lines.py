"""Bugs in the reading of lines: fields that break a rule, and the visitors of servers (rules J4, J6)."""

from tests.mutants.mutant import Mutant

PARSE, MENDS = "app/core/events/parse.py", "app/core/events/mends.py"
LINES = ("tests/unit/events/test_events_kept.py", "tests/property/test_lines_equal_oracle.py")

MUTANTS = (
    Mutant(
        "a field that breaks its rule is thrown away",
        "J6",
        PARSE,
        "        if name in known or name not in OF_SERVERS\n    }",
        "        if name not in known\n    }",
        LINES,
    ),
    Mutant(
        "an optional field makes the line malformed",
        "J6",
        PARSE,
        '            if is_required(name, event):\n                return f"{name}: {found}"\n',
        '            return f"{name}: {found}"\n',
        LINES,
    ),
    Mutant(
        "a mended field is not named",
        "J6",
        PARSE,
        "        if found.fault is not None:\n",
        "        if found.fault is None:\n",
        LINES,
    ),
    Mutant(
        "a fraction is cut off",
        "J6",
        MENDS,
        "    return Mended(math.floor(value + 0.5)) if isinstance(value, float) else None",
        "    return Mended(math.floor(value)) if isinstance(value, float) else None",
        LINES,
    ),
    Mutant(
        "a clock that is a day ahead is believed",
        "J6",
        PARSE,
        'or stored["occurred_at"] > sender.received_at_ms + DAY_MS',
        'or stored["occurred_at"] > sender.received_at_ms + 999 * DAY_MS',
        LINES,
    ),
    Mutant(
        "a server's library is taken for the visitor's agent",
        "J4",
        PARSE,
        "            return cls(kind, received_at_ms, None, None)",
        "            return cls(kind, received_at_ms, ip, user_agent)",
        ("tests/unit/events/test_events_senders.py",),
    ),
    Mutant(
        "a server's event without an agent is a bot's",
        "J4",
        "app/core/etl/classify.py",
        'columns["key_kind"][n] == "server"',
        'columns["key_kind"][n] == "nobody"',
        ("tests/unit/etl/test_senders.py", "tests/property/test_step_equals_oracle.py"),
    ),
)
