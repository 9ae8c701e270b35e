"""The audit: it sends missing batches again."""
