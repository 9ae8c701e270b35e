"""The erasure of a visitor: which lines are the visitor's, and files, records and raw files without them (rule R7)."""
