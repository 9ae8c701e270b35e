"""Feeds damaged bytes to every decoder, the collector and the stand-in's SQL, and shows each error that is not declared.

A case is a target and a seed: the same two always give the same bytes, whatever came before, so each finding plays again.
"""
