"""The state of a running pipeline: what was seen of it, and the verdict on that."""
