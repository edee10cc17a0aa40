"""Errors of a run's teachers at each bucket, from the velocities cached for validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.core.progress import say
from tinyflux_pl.core.types import VELOCITY
from tinyflux_pl.objectives.teacher_errors import bucket_errors

if TYPE_CHECKING:
    from tinyflux_pl.app.caches.source_cache import SourceCache
    from tinyflux_pl.core.protocols import Path
    from tinyflux_pl.core.target_expert import TargetExpert
    from tinyflux_pl.objectives.velocity_targets import VelocityTargets

MAX_SAMPLES = 1024  # of a source, evenly spaced
BLOCK = 64  # samples read at once


def measure(targets: VelocityTargets, sources: Sequence[Source], path: Path, kind: str) -> None:
    """Measure each teacher against the data, in the student's path and prediction kind.

    Says which teacher is the best at each time.
    """
    rows = []
    for expert in targets.experts:
        caches = [s.validation for s in sources if expert.name in s.validation.experts]
        parts = [part for cache in caches for part in _errors(cache, expert, path, kind)]
        rows.append(torch.cat(parts).mean(0))
    targets.errors = torch.stack(rows).float()
    for expert, errors in zip(targets.experts, targets.errors.tolist(), strict=True):
        pairs = zip(targets.buckets, errors, strict=True)
        figures = ", ".join(f"{time:g}: {error:.3f}" for time, error in pairs)
        say(f"error of {expert.name} on validation data at t = {figures}")


def _errors(cache: SourceCache, expert: TargetExpert, path: Path, kind: str) -> list[Tensor]:
    store = cache.store
    stride = -(-len(store) // MAX_SAMPLES)
    rows = list(range(0, len(store), stride))
    errors = []
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        latents = store.gather("latents", block).float()
        velocity = store.gather(f"{expert.name}.{VELOCITY}", block).float()
        ids = store.gather("sample_ids", block).tolist()
        errors.append(bucket_errors(expert, latents, velocity, ids, path, kind))
    return errors
