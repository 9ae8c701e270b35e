"""A stand-in for Athena: it runs the same statements over the same files, on this machine.

    tables.py    what a CREATE EXTERNAL TABLE says: columns, reader, partitions
    serdes.py    the readers of files (SerDes), as Hive's behave
    engine.py    the statements, translated for DuckDB; a table's files are read when a query names it

Differences from Athena: a partition is a folder that exists, where Athena's projection makes every combination and finds
some of them empty; a table is read whole, without pruning by dates; DuckDB executes what sqlglot translates from Athena's
SQL, so a function that only one of them has fails.
"""
