"""Every planted bug, in the order of the pipeline."""

from tests.mutants import (
    of_audit,
    of_cells,
    of_change,
    of_client_lines,
    of_delivery,
    of_erase,
    of_etl,
    of_files,
    of_join,
    of_lines,
    of_schema,
    of_sink,
    of_step_on_cells,
    of_time,
    of_whole,
    of_whole_entry,
    of_window_arrays,
)

MUTANTS = (
    *of_lines.MUTANTS, *of_client_lines.MUTANTS, *of_cells.MUTANTS, *of_time.MUTANTS, *of_etl.MUTANTS, *of_change.MUTANTS,
    *of_join.MUTANTS, *of_window_arrays.MUTANTS, *of_step_on_cells.MUTANTS, *of_sink.MUTANTS, *of_files.MUTANTS,
    *of_delivery.MUTANTS, *of_schema.MUTANTS, *of_erase.MUTANTS,
    *of_audit.MUTANTS, *of_whole_entry.MUTANTS, *of_whole.MUTANTS,
)  # fmt: skip
