"""Kernels of the join: tables of events and page views, an event's admission, and its closing."""
