"""Sampling from an initial picture: its strength, and a mask of the part that is redrawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.diffusion.solvers import Field


@dataclass(frozen=True)
class Initial:
    """Latents (1, C, H, W) of an initial image and the fraction of steps taken.

    `strength` 1 takes all steps, from noise. `mask` (1, 1, H, W) is 1 where the picture is drawn
    anew and 0 where it is kept, with values between where both mix; None: everywhere anew.
    """

    latents: Tensor
    strength: float
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            cure = "above 0, where the picture stays, to 1, where all of it is noise at first"
            raise ConfigError(f"strength={self.strength}", where="strength", cure=cure)

    def first_step(self, steps: int) -> int:
        """Index of the first step that is taken, as in diffusers' pipelines; at least one is."""
        return min(max(steps - int(steps * self.strength), 0), steps - 1)

    def start(
        self, x: Float[Tensor, "b c h w"], noise: Tensor, t: Float[Tensor, ""], path: Path
    ) -> Float[Tensor, "b c h w"]:
        """The state at t: the picture with noise at level t; at full strength x inside the mask."""
        t = to_device(t.expand(len(x)), x.device)
        seen = path.interpolate(self.latents.to(x).expand_as(x), noise, t)
        if self.strength < 1:
            return seen
        return x if self.mask is None else torch.lerp(seen, x, self.mask.to(x))

    def constrained(self, field: Field, noise: Tensor, path: Path) -> Field:
        """The field that leads to the picture itself outside the mask.

        There the velocity is that of the straight way from this noise to the picture, so every
        solver arrives at it.
        """
        if self.mask is None:
            return field
        mask = self.mask.to(noise)
        latents = self.latents.to(noise).expand_as(noise)

        def masked(x: Tensor, t: Tensor) -> Tensor:
            straight = path.velocity(latents, noise, to_device(t, x.device))
            return torch.lerp(straight, field(x, t), mask)

        return masked
