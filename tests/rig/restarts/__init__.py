"""Measures how long posting clients wait after a kill of the collector."""
