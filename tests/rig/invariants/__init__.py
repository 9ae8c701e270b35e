"""Whether a stack that has settled kept its promises: exact checks, after a run, of what it holds.

    I1  rows.py          every flow's rows are what the runs must lead to, and nothing else is there
    I2  batches.py       the ledger of every registered batch covers its lines once, and says what the tables have
    I3  batches.py       every acknowledged batch is registered, its raw file is what was registered
    I4  transactions.py  chains without a gap, files and manifests as recorded, a transaction loaded whole or not at all
    I5  replays.py       every batch once more through Kinesis changes no row
    I7  settle.py        nothing lags and no batch is open

    check.py    all of them, in the order that makes sense      gather.py    reads what is judged
    arrivals.py when each event was really received, and which came late to Kinesis

What is found is a list of violations, in words; a check raises only where a service does not answer.
"""
