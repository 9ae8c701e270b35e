"""A rolling upgrade of a real stack under load, and the way back: `make upgrade-drill`.

    versions.py     the two code trees: a revision or this tree, and a copy or the next version of it
    plan.py         which process goes when, up and back
    switch.py       carries a step out, and proves which code runs afterwards
    newer_events.py events that only the newer version knows, sent all the time
    newer_rows.py   judges the rows that came of them, and the newer columns
    load.py         the traffic of a drill
    pauses.py       how long each partition showed nothing new
    run.py          one drill: stack, load, steps, judgement
    report.py       the answer, and its tables

The drill itself, the stack's supervisor and the stand-ins run the newer tree, so that the judgement knows every table and
column; trees.json leads each role to the version that is its turn.
"""
