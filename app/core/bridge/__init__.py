"""The order in which shards are read, and the time that they tell."""
