"""How long clients that post wait for a collector that is killed."""
