"""Bugs by which a change of the code, or two versions of it, would lose lines (rules E9, E10)."""

from tests.mutants.mutant import Mutant

CONSERVATION = ("tests/unit/etl/test_conservation.py",)
NEWER = ("tests/unit/etl/test_newer_and_older.py",)
MIXED = ("tests/simulation/test_upgrade.py",)

MUTANTS = (
    Mutant(
        "a step is sent without its lines being accounted for",
        "E9",
        "app/core/etl/emit.py",
        "        verify_lines(blocks, self.ledger, left_open, self.closed_before)\n",
        "",
        CONSERVATION,
    ),
    Mutant(
        "a step is sent though its ledger and its rows differ",
        "E9",
        "app/core/etl/emit.py",
        "        verify_rows(self.ledger, self.row_counts, self.joined, self.dropped)\n",
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
        "app/core/events/read_stored.py",
        "return known | _with_unknown(known, unknown) if unknown else known",
        "return known",
        NEWER,
    ),
    Mutant(
        "an event of a type that only a newer collector knows is rejected",
        "E10",
        "app/core/events/read_stored.py",
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
    Mutant(
        "a newer column is passed over with its values",
        "E10",
        "app/core/formats/columns.py",
        "if frame[name].null_count() < frame.height]",
        "if not frame.height]",
        MIXED,
    ),
    Mutant(
        "a newer column makes its reader wait although it has no value",
        "E10",
        "app/core/formats/columns.py",
        "if frame[name].null_count() < frame.height]",
        "if frame.height]",
        MIXED,
    ),
    Mutant(
        "an event of a newer type is taken for a malformed line",
        "E10",
        "app/core/events/read_stored.py",
        "    if is_name and is_event and event_type not in EVENT_TYPES:\n",
        "    if is_name and is_event and event_type == EVENT_TYPES:\n",
        MIXED,
    ),
    Mutant(
        "a sink does not finish a transaction that has a newer sink's rows",
        "S3",
        "app/core/sink/chain.py",
        "    if (record.epoch, record.partition, record.number) != (*chain_id, number):\n",
        "    refuse_unloadable(record.outputs, _named(chain_id, number))\n"
        "    if (record.epoch, record.partition, record.number) != (*chain_id, number):\n",
        MIXED,
    ),
    Mutant(
        "delivery loads what it knows of a newer sink's transaction",
        "E10",
        "app/core/sink/chain.py",
        "    refuse_unloadable(record.outputs, _named(chain_id, number))\n",
        "",
        MIXED,
    ),
    Mutant(
        "a newer sink does not say that its file has a column more",
        "E10",
        "app/core/sink/open_transaction.py",
        "version=UNSET if (version := BY_NAME[file.output].version) == 1 else version,",
        "version=UNSET,",
        MIXED,
    ),
    Mutant(
        "a newer delivery copies an older sink's file with its own columns",
        "E10",
        "app/core/delivery/load_plan.py",
        "OutputLoad(flow.at(version), key,",
        "OutputLoad(flow, key,",
        MIXED,
    ),
    Mutant(
        "a newer ETL needs its column in an older ETL's window",
        "E10",
        "app/core/formats/columns.py",
        "    if any(frame.columns != stacked.columns for frame in others):\n",
        "    if not others:\n",
        MIXED,
    ),
)
