"""Shared code of the pipeline: the deciding core, the adapters, the collector, the local stack, the commands."""
