"""Several jobs of one command: how each ended, their table, and a search over their values."""
