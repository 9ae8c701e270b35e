"""The sink: rows to files, as one transaction."""
