"""The audit's decisions: which batches are complete, and which are sent again."""
