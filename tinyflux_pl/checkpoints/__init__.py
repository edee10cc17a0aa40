"""Floor 4: checkpoints as verified directories."""
