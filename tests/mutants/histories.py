"""Plays simulated histories, seed after seed, until one breaks a rule: python -m tests.mutants.histories SEEDS FROM.

Exit codes: 0 all hold, 1 one does not (its seed and what it broke are printed).
"""

import logging
import os
import sys

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # as in the workers (app.apps), and before anybody imports polars

import structlog

from tests.simulation.history import play

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def main(seeds: int, first: int) -> int:
    """Play `seeds` histories from seed `first` on."""
    for seed in range(first, first + seeds):
        try:
            broken = play(seed).violations
        except Exception as exc:  # the loop found that nothing moves any more, say
            broken = [f"{type(exc).__name__}: {exc}"]
        if broken:
            print(f"FAILED seed {seed}: {broken[0]}", flush=True)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
