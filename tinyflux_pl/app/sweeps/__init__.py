"""Sweeps: the jobs of one command, how each ended, their table, and hyperparameter search."""
