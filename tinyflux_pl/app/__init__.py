"""Floor 7: beside the entry scripts, the only package that imports Hydra."""
