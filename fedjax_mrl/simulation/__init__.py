"""Plays rounds: who takes part, with which batches, on which device."""
