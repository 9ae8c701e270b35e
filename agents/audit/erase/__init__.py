"""Erasures: a visitor's lines leave warehouse, data files and raw files, and the books balance (rule R7)."""
