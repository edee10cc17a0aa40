"""Floor 1: the mathematics. Pure functions of tensors, each with its source."""
