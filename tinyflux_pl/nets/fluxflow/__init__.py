"""FluxFlow's networks without the original's defects; `reference` has the published ones."""
