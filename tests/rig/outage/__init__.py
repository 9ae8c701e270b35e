"""If a service stalls, memory stays bounded and everything is delivered afterwards: `make outage MINUTES=10`.

run.py     steady load on a stack of its own, one outage after the other, then the comparison
faults.py  the outages: broker, AWS or warehouse are frozen, so that their clients wait instead of being refused
memory.py  the highest resident memory of each role's process, sampled, and the bounds that it must stay under
"""
