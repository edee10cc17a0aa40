"""FluxFlow's networks as published (fluxflow-core 0.3.1): its keys, its numbers, its defects."""
