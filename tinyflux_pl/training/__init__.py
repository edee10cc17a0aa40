"""Floor 6: the only room that knows Lightning."""
