"""Floor 7: beside the entry scripts, the only room that knows Hydra."""
