"""Runs on disk: folders, tables, checkpoints, pictures, and comparisons of runs."""
