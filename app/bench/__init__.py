"""Benchmarks of the pipeline's stages, on real parts where a stage has them (`instream bench`).

traffic.py    the events that every stage works on, with what must become of them
measure.py    CPU, memory and time of a process; pinning; runs and their medians
phases.py     where the CPU goes, by sampling the stack
report.py     the result of a stage, and the tables
plan.py       what a stage is asked to do; flame graphs
cluster.py    a broker and workers for the stages that need them
stages.py     which stages there are
<stage>.py    one file a stage
"""
