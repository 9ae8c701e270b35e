"""Faults that are planted in a running stack, and what `instream status` says of each."""
