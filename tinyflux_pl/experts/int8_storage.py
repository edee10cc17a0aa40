"""Teachers' velocities as int8 levels with one scale for each sample and bucket."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int8
from torch import Tensor

LARGEST = 127


def to_levels(
    velocity: Float[Tensor, "b k c h w"],
) -> tuple[Int8[Tensor, "b k c h w"], Float[Tensor, "b k"]]:
    """Levels and scales, velocity = levels * scale up to half a scale.

    Scales are rounded up to eight bits, and are float16's smallest normal number at least, so that
    every floating-point dtype of a store holds them exactly.
    """
    largest = velocity.flatten(2).abs().amax(2) / LARGEST
    mantissa, exponent = torch.frexp(largest.clamp_min(torch.finfo(torch.float16).tiny))
    scale = torch.ldexp(torch.ceil(mantissa * 256) / 256, exponent)
    return (velocity / scale[..., None, None, None]).round().to(torch.int8), scale


def from_levels(
    levels: Float[Tensor, "b c h w"], scale: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """The velocities at one bucket a sample."""
    return levels * scale.float().view(-1, 1, 1, 1)
