"""Floor 6: the only package that imports Lightning."""
