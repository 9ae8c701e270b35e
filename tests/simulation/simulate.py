"""make simulate SEEDS=N FROM=K | SEED=K"""
import sys, os
from pathlib import Path
here = Path(__file__).parent
sys.path[:0] = [str(here), str(here.parent), str(here.parents[1])]
os.environ.setdefault("POLARS_MAX_THREADS", "1")
import logging, structlog, time
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
from history import play
seed = int(sys.argv[1]); n = int(sys.argv[2]) if len(sys.argv) > 2 else 1
for s in range(seed, seed+n):
    t = time.process_time()
    h = play(s, print if n == 1 else None)
    print(s, h.digest, h.events, f"{h.virtual_s:.0f}", f"{time.process_time()-t:.2f}s", h.violations[:3], flush=True)
    if n==1: print(h.counts)
