"""Crash points: a name before and after every call of a role to something outside its process, where a test ends it.

    catalogue.py   the closed list of calls, and with it of points
    points.py      what one process does at a point: go on, or end
    proxies.py     the thin wrappers that pass the points, around the adapters of a process that has them turned on

With INSTREAM_CRASH_PLAN unset none of this is in the way of any call: the adapters themselves are used.
"""
