"""Validation on a fixed grid of times, with fixed noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tinyflux_pl.core import metric_names, rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Denoiser
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Batch
from tinyflux_pl.diffusion import losses, prediction
from tinyflux_pl.diffusion.paths import time_at


class FixedGrid:
    """Mean squared error of the prediction at each of `times`, without teachers.

    `times` are fractions of the way from noise (0) to data (1), so that a grid means the same on
    every path. Noise depends on (seed, sample_id) alone.
    """

    def __init__(self, times: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9), seed: int = 0) -> None:
        self.times = tuple(times)
        self.seed = seed
        if not self.times or not all(0 <= time <= 1 for time in self.times):
            raise ConfigError(
                f"times are {list(times)}",
                where="callbacks.validation.times",
                cure="one number or more, each from 0 (noise) to 1 (data): [0.1, 0.5, 0.9]",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of `errors`, in its order."""
        at = (metric_names.VALIDATION_AT.of(time=f"{time:g}") for time in self.times)
        return (metric_names.VALIDATION_LOSS.pattern, *at)

    @torch.no_grad()
    def errors(self, denoiser: Denoiser, batch: Batch) -> dict[str, Tensor]:
        """Mean `validation/loss`, then `validation/loss_t_<time>` for every time of the grid."""
        path = denoiser.path
        noise = rng.normal(
            batch.latents.shape[1:], self.seed, "validation", batch.sample_ids.tolist()
        )
        noise = to_device(noise, batch.latents.device)
        errors: list[Tensor] = []
        for time in self.times:
            progress = torch.full((len(batch),), time, dtype=torch.float64, device=noise.device)
            t = time_at(path, progress, "data").float()
            target = prediction.target(denoiser.prediction, batch.latents, noise, t, path)
            x_t = path.interpolate(batch.latents, noise, t)
            output = denoiser(x_t, t, batch.conditioning())
            error = losses.mse(output.sample.float(), target)
            per_sample = losses.unpadded_mean(error, batch.target_mask)
            errors.append(per_sample.mean())
        return dict(zip(self.names, [torch.stack(errors).mean(), *errors], strict=True))
