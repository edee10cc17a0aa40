"""Rules of guidance: pure functions of a conditional and an unconditional velocity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.diffusion.paths import expand_like


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)


def cfg(
    cond: Float[Tensor, "b ..."], uncond: Float[Tensor, "b ..."], scale: float
) -> Float[Tensor, "b ..."]:
    """u + s (c - u). Ho and Salimans 2022 (2207.12598)."""
    return uncond + scale * (cond - uncond)


def cfg_zero(
    cond: Float[Tensor, "b ..."], uncond: Float[Tensor, "b ..."], scale: float
) -> Float[Tensor, "b ..."]:
    """CFG from the unconditional scaled to fit: k u + s (c - k u), k = <c, u> / |u|^2.

    2503.18886.
    """
    product = (_flat(cond) * _flat(uncond)).sum(1)
    fit = expand_like(product / _flat(uncond).square().sum(1).clamp_min(1e-12), cond)
    return fit * uncond + scale * (cond - fit * uncond)


def apg(
    cond: Float[Tensor, "b ..."],
    difference: Float[Tensor, "b ..."],
    scale: float,
    along: Float[Tensor, "b ..."],
    eta: float = 0.0,
    norm_limit: Float[Tensor, " b"] | None = None,
) -> Float[Tensor, "b ..."]:
    """c + (s - 1) (d_perp + eta d_par), d = c - u split at `along`, the conditional x0. 2410.02416.

    norm_limit (B,) caps |d| first. Velocities may stand for x0 in c and d: the split commutes with
    scaling.
    """
    if norm_limit is not None:
        length = _flat(difference).norm(dim=1).clamp_min(1e-12)
        difference = difference * expand_like((norm_limit / length).clamp_max(1.0), cond)
    unit = torch.nn.functional.normalize(_flat(along), dim=1).reshape(along.shape)
    parallel = expand_like((_flat(difference) * _flat(unit)).sum(1), cond) * unit
    return cond + (scale - 1) * (difference - parallel + eta * parallel)


def rescale(
    guided: Float[Tensor, "b ..."], cond: Float[Tensor, "b ..."], amount: float
) -> Float[Tensor, "b ..."]:
    """Restore the deviation of the conditional by `amount` (Lin et al. 2023, equation 15)."""
    factor = _flat(cond).std(1) / _flat(guided).std(1).clamp_min(1e-12)
    return guided * expand_like(amount * factor + (1 - amount), guided)


def dynamic_threshold(
    x0: Float[Tensor, "b ..."], percentile: float = 0.995, bound: float = 1.0
) -> Float[Tensor, "b ..."]:
    """Clip to the percentile p of |x0| and divide so that it becomes `bound`, where p > bound.

    Imagen, 2205.11487.

    Meant for pixels in [-bound, bound]; latents have no such bound, so give one measured from data.
    """
    size = torch.quantile(_flat(x0).abs().float(), percentile, dim=1).to(x0.dtype)
    limit = expand_like(size.clamp_min(bound), x0)
    return x0.clamp(-limit, limit) * (bound / limit)


class Momentum:
    """The running difference of APG: d + beta d_previous, beta below 0 in the paper. 2410.02416."""

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.previous: Tensor | None = None

    def update(self, difference: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """The difference with its past, which is remembered for the next evaluation."""
        if self.previous is not None:
            difference = difference + self.beta * self.previous
        self.previous = difference
        return difference
