"""The crash sweep: real workers of a real stack end at every crash point, once and twice in a row, and nothing is lost.

histories.py   the events that bring a role to a point
rounds.py      the points that are met together
sweep.py       one life of a stack: arm, drive, see the deaths, await the recovery, check
events.py      events on the stack: traffic, orphaned batches, a shard split, a stale store
"""
