"""Repair: what the deep audit finds is made again from its source."""
