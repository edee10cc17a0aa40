"""A random seed, drawn and printed where the user gives -1."""

from __future__ import annotations

import secrets

from tinyflux_pl.config.schema import Generate

RANDOM_SEED = -1
SEED_BITS = 31  # few enough digits to copy


def with_seed(config: Generate) -> Generate:
    """The configuration with a random seed, printed, in place of -1."""
    if config.seed != RANDOM_SEED:
        return config
    seed = secrets.randbits(SEED_BITS)
    print(f"seed={seed} was drawn at random; give it to draw the same pictures again")
    return config.replace(seed=seed)
