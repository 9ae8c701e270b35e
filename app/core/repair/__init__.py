"""Decides about damaged steps of topic `rows`: which messages are damaged, and what replaces them (rule E2)."""
