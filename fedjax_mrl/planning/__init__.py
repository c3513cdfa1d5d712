"""Foretells what a run takes: memory, bytes, arithmetic and time."""
