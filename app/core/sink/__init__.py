"""The transaction chain of a partition."""
