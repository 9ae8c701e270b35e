"""Benchmarks of the pipeline's stages, on real parts where a stage has them (`instream bench`).

traffic.py    the events that every stage works on, with the expected outcomes
measure.py    CPU, memory and time of a process; pinning; runs and their medians
phases.py     the CPU time of each phase, by sampling the stack
report.py     the result of a stage, and the tables
plan.py       the options of a run; flame graphs
cluster.py    a broker and workers for the stages that need them
whole_path.py one run through the whole path, with every row compared
stage_list.py the list of stages
stages/       one file a stage
"""
