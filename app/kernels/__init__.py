"""Compiled loops over bytes and arrays. This package alone imports numba; no kernel knows an event, a flow or a rule."""
