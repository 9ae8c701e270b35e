"""Plays hostile and clumsy clients against a real collector."""
