"""The experts that conf/experts/ offers."""

from __future__ import annotations

import functools
from pathlib import Path

CONF = Path(__file__).resolve().parents[2] / "conf"


@functools.cache
def offered_experts() -> tuple[str, ...]:
    """Their names, in order."""
    from omegaconf import OmegaConf

    names: set[str] = set()
    for file in (CONF / "experts").glob("*.yaml"):
        names |= {str(name) for name in OmegaConf.load(file)}
    return tuple(sorted(names - {"defaults"}))
