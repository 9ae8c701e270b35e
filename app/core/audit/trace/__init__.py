"""The decisions of `instream trace`: where an id's lines are, and what became of each."""
