"""Floor 4: checkpoints as verified directories, and key layouts."""
