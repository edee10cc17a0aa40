"""Floor 4: memory that a machine has: planned, counted and measured."""
