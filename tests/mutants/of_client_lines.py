"""Bugs in the kernels' reading of a client's lines, and in what is asked about it (rules J4, J6)."""

from tests.mutants.mutant import Mutant

READER, LINES, VALUES = "app/core/events/client_lines.py", "app/kernels/client_lines.py", "app/kernels/json_values.py"
TESTS = ("tests/property/test_client_lines.py", "tests/unit/kernels/test_json_text.py")

MUTANTS = (
    Mutant(
        "a number keeps a text that no encoder writes",
        "J6",
        READER,
        "                is_so = encode(decode(text)) == text\n",
        "                is_so = True\n",
        TESTS,
    ),
    Mutant(
        "a line that is not UTF-8 is stored as it came",
        "J6",
        READER,
        "        foreign = [] if _is_utf8(text) else ",
        "        foreign = [] if count else ",
        TESTS,
    ),
    Mutant(
        "an array is read although one of its elements is no JSON",
        "J6",
        READER,
        "        if not all(map(is_json, piece.doubts)):\n",
        "        if not piece.sizes.size:\n",
        TESTS,
    ),
    Mutant(
        "a document of several lines is read as NDJSON",
        "J6",
        READER,
        "        if name == TEXT_TYPE and pieces[0].sizes[0] == DOUBT and is_document(content):\n",
        "        if not pieces:\n",
        TESTS,
    ),
    Mutant(
        "a time two days ahead is taken",
        "J6",
        READER,
        "        latest_ms = sender.received_at_ms + DAY_MS\n",
        "        latest_ms = sender.received_at_ms + 2 * DAY_MS\n",
        TESTS,
    ),
    Mutant(
        "the first of two equal keys counts",
        "J6",
        VALUES,
        "        if keys[place] == keys[count]:\n            return 0\n",
        "        if keys[place] == keys[count]:\n            return 1\n",
        TESTS,
    ),
    Mutant(
        "a field that comes twice is stored once more",
        "J6",
        LINES,
        "            seen |= 1 << field\n",
        "            seen |= 0 << field\n",
        TESTS,
    ),
    Mutant(
        "a field that the type requires may be missing",
        "J6",
        LINES,
        "    if kinds[kind, REQUIRED] & ~found or ",
        "    if ",
        TESTS,
    ),
    Mutant(
        "a key of the properties' own does not win",
        "J6",
        LINES,
        "            if keys[0, own] == keys[1, other]:\n                return 1\n",
        "            if keys[0, own] == keys[1, other]:\n                return 0\n",
        TESTS,
    ),
)
