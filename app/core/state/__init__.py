"""The tables of one partition and how their keys and values are encoded."""
