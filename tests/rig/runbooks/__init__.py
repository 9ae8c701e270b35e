"""Runbooks on a real stack: each fault is planted, its alert fires, the runbook's commands run, and the alert ends."""
