"""The seed of a drawing: seed=-1 asks for one that nobody chose, which is told and recorded like any other."""

from __future__ import annotations

import secrets
from typing import Any

RANDOM = -1
BITS = 31  # few enough digits to copy


def chosen(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with a seed from the system's own randomness in place of -1; it is printed."""
    if config["seed"] != RANDOM:
        return config
    seed = secrets.randbits(BITS)
    print(f"seed={seed} was drawn at random; give it to draw the same pictures again")
    return {**config, "seed": seed}
