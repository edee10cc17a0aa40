"""Training pictures that a base or a teacher draws before the first step."""
