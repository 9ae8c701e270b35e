"""Whatever stalls downstream, memory stays bounded and everything is delivered afterwards: `make outage MINUTES=10`.

run.py     steady load on a stack of its own, one outage after the other, then the comparison
faults.py  what is down: the broker, AWS, the warehouse, each frozen, so that its clients wait instead of being refused
memory.py  the highest resident memory of each role's process, sampled, and the bounds that it must stay under
"""
