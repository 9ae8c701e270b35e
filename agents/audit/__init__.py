"""The audit: what is missing is sent again."""
