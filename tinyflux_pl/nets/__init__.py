"""Floor 2: torch modules, nothing else."""
