"""Delivery: files to the warehouse."""
