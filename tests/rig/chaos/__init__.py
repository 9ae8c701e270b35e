"""Faults of every kind against a real stack under load, and the invariants afterwards: `make chaos MINUTES=10 SEED=K`.

    plan.py       the faults and their times, drawn from the seed before the run
    run.py        one run: stack, load, faults, quiet, judgement
    strike.py     carries a plan out: one method a kind of fault
    workers.py    signals to the roles, and workers that come and go beside the supervised ones
    state.py      damage to a RocksDB directory
    services.py   faults of the stand-ins, shards, locks
    messages.py   foreign and damaged messages on every topic
    objects.py    damage to ready.json, records, data files and raw files, and what must follow
    items.py      items of the registry that are no batch
    quarantine.py transactions that were set aside: their release, and their reasons
    report.py     the journal and the table

A seed gives the same plan each time, and the same calls of AWS fail; the exact times depend on the machine.
"""
