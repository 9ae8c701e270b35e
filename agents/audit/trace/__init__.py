"""Traces events: the index from ids to raw files, and the fate of each line."""
