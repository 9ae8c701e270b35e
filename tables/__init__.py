"""State that Faust recovers for us: the step-committing table, checkpoints, dimensions."""
