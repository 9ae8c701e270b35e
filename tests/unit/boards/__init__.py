"""Tests of the operator's files: alerts, boards and runbooks."""
