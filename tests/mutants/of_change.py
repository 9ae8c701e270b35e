"""Bugs by which a change of the code, or two versions of it, would lose lines (rules E9, E10)."""

from tests.mutants.mutant import Mutant

CONSERVATION = ("tests/unit/etl/test_conservation.py",)
NEWER = ("tests/unit/etl/test_newer_and_older.py",)

MUTANTS = (
    Mutant(
        "a step is sent without its lines being accounted for",
        "E9",
        "app/core/etl/emit.py",
        "        verify_lines(blocks, self.ledger, opened.frames, self.closed_before)\n",
        "",
        CONSERVATION,
    ),
    Mutant(
        "a step is sent though its ledger and its rows differ",
        "E9",
        "app/core/etl/emit.py",
        "        verify_rows(self.ledger, self.row_counts, self.joined, self.duplicates)\n",
        "",
        CONSERVATION,
    ),
    Mutant(
        "a line with two outcomes is not noticed",
        "E9",
        "app/core/etl/conservation.py",
        "if twice := count - sum(map(len, accounted.values())):",
        "if twice := 0:",
        CONSERVATION,
    ),
    Mutant(
        "a field that only a newer collector knows is dropped",
        "E10",
        "app/core/events/parse.py",
        "return known | _with_unknown(known, unknown) if unknown else known",
        "return known",
        NEWER,
    ),
    Mutant(
        "an event of a type that only a newer collector knows is rejected",
        "E10",
        "app/core/events/parse.py",
        "    _refuse_newer_type(stored)\n",
        "",
        NEWER,
    ),
    Mutant(
        "a newer column of the window is dropped with its values",
        "E10",
        "app/core/join/window_state.py",
        '    refuse_unknown_values(f"{what} with column", packed, known)\n',
        "",
        NEWER,
    ),
)
