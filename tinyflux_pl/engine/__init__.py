"""Floor 4: what a machine can hold: memory planned, counted and measured."""
