"""Crash points: a name before and after every call of a role to a service, at which a test can end the process.

    catalogue.py   the closed list of calls, and so of points
    points.py      decides what one process does at a point: go on, or end
    proxies.py     thin wrappers around the adapters; they pass the points

If INSTREAM_CRASH_PLAN is not set, the adapters themselves are used and no call passes a point.
"""
