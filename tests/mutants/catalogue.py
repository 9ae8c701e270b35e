"""Every planted bug, in the order of the pipeline."""

import of_audit
import of_delivery
import of_etl
import of_join
import of_sink
import of_time
import of_whole

MUTANTS = (
    *of_time.MUTANTS, *of_etl.MUTANTS, *of_join.MUTANTS, *of_sink.MUTANTS, *of_delivery.MUTANTS, *of_audit.MUTANTS,
    *of_whole.MUTANTS,
)  # fmt: skip
