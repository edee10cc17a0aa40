"""The error of a teacher's cached velocities, in the units of the student's regression."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.target_expert import TargetExpert
from tinyflux_pl.diffusion import prediction


def bucket_errors(
    expert: TargetExpert,
    latents: Float[Tensor, "b c h w"],
    velocity: Float[Tensor, "b k c h w"],
    sample_ids: list[int],
    path: Path,
    kind: str,
) -> Float[Tensor, "b k"]:
    """Mean squared error of each sample at each bucket against the data, fp64, on the host.

    `path` and `kind` are those of the student: objectives.validation measures it the same way.
    """
    errors = []
    for k, time in enumerate(expert.spec.t_buckets):
        noise = expert.noise(latents.shape[1:], sample_ids, [k] * len(sample_ids))
        t = torch.full((len(latents),), time)
        x_t = path.interpolate(latents, noise, t)
        teacher = prediction.convert(velocity[:, k], x_t, t, path, "velocity", kind)
        target = prediction.target(kind, latents, noise, t, path)
        errors.append((teacher - target).double().square().flatten(1).mean(1))
    return torch.stack(errors, 1)
