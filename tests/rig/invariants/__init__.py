"""Exact checks after a run whether a settled stack kept its promises.

    I1  rows.py          every flow has the rows that the runs must lead to, and no others
    I2  batches.py       the ledger of every registered batch covers its lines once, and fits the tables
    I3  batches.py       every acknowledged batch is registered, with the right raw file
    I4  transactions.py  chains without a gap, files and manifests as recorded, a transaction loaded whole or not at all
    I4  deep.py          and the deep audit agrees
    I5  replays.py       every batch once more through Kinesis changes no row
    I7  settle.py        nothing lags and no batch is open

    check.py    all of them, in the order that makes sense      gather.py    reads the data
    arrivals.py the real time of receipt of each event, and the events that came late to Kinesis

The result is a list of violations, in words; a check raises only if a service does not answer.
"""
