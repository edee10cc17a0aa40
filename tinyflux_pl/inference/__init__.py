"""Floor 6: from a checkpoint and a prompt to a picture."""
