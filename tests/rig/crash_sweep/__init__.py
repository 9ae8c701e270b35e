"""The crash sweep: real workers of a real stack end at every crash point, once and twice in a row, and nothing is lost.

histories.py   what must happen so that a role comes to a point
rounds.py      which points are met together
sweep.py       one life of a stack: arm, drive, see the deaths, await the recovery, check
events.py      what is done to the stack: traffic, orphaned batches, a shard split, a store that is stale
"""
