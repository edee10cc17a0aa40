"""An autoencoder's posterior from its moments."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def mean_and_deviation(
    moments: Float[Tensor, "b c2 h w"],
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
    """Mean and standard deviation in fp32 from means and log variances, bounded as in diffusers."""
    mean, log_variance = moments.float().chunk(2, dim=1)
    return mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))
