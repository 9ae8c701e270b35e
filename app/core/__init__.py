"""Pure decisions: no I/O, no clock, no randomness; every module takes what it needs as arguments."""
