"""Guidance: combining a conditional and an unconditional velocity.

Rules are pure functions; `Guidance` selects one, its strength and its interval.
The interval is progress along the path from noise (0) to data (1), not steps, so it means the same
noise levels under any shift. Outside the interval, and at scale 1, the unconditional is not
evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.diffusion.paths import expand_like
from tinyflux_pl.diffusion.prediction import convert, to_data_and_noise

KINDS = ("cfg", "apg", "cfg_zero")
CURVES = ("constant", "triangle")


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
    uncond: Float[Tensor, "b ..."],
    scale: float,
    along: Float[Tensor, "b ..."],
    eta: float = 0.0,
    norm_limit: Float[Tensor, " b"] | None = None,
) -> Float[Tensor, "b ..."]:
    """c + (s - 1) (d_perp + eta d_par), d = c - u split at `along`, the conditional x0. 2410.02416.

    norm_limit (B,) caps |d| first. Any affine image of x0 may stand for it: the split commutes with
    scaling.
    """
    difference = cond - uncond
    if norm_limit is not None:
        length = _flat(difference).norm(dim=1).clamp_min(1e-12)
        difference = difference * expand_like((norm_limit / length).clamp_max(1.0), cond)
    unit = torch.nn.functional.normalize(_flat(along), dim=1).reshape(along.shape)
    parallel = expand_like((_flat(difference) * _flat(unit)).sum(1), cond) * unit
    return cond + (scale - 1) * (difference - parallel + eta * parallel)


def rescale(
    guided: Float[Tensor, "b ..."], cond: Float[Tensor, "b ..."], amount: float
) -> Float[Tensor, "b ..."]:
    """Bring each sample's deviation back to the conditional's, by `amount`. Lin et al. 2023,
    equation 15.
    """
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


def triangle(share: float, scale: float, peak: float = 0.5) -> float:
    """A weight rising from 1 to 2 scale - 1 at `peak` and back; its mean over the path is `scale`.
    2509.22007.
    """
    height = share / peak if share < peak else (1 - share) / (1 - peak)
    return 1 + 2 * (scale - 1) * height


@dataclass(frozen=True)
class Guidance:
    """Strength and rule of guidance, and the interval of the path where it applies.

    kind cfg | apg | cfg_zero; curve constant | triangle. eta and norm_limit (0: none) are APG's;
    zero_until is the progress up to which CFG-Zero does not move (0.04 in the paper, 0 for few
    steps); threshold is the percentile of dynamic thresholding (0: none), threshold_bound the
    data's range. embedded is no rule: it is the guidance input of a distilled network (None: none);
    negative is the prompt of the unconditional (None: the text encoder's null()). Scale 0 means 1,
    as in diffusers.
    """

    scale: float = 5.0
    kind: str = "cfg"
    interval: Sequence[float] = (0.0, 1.0)
    rescale: float = 0.0
    curve: str = "constant"
    peak: float = 0.5
    eta: float = 0.0
    norm_limit: float = 0.0
    zero_until: float = 0.0
    threshold: float = 0.0
    threshold_bound: float = 1.0
    embedded: float | None = None
    negative: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", tuple(float(x) for x in self.interval))
        for name, choices in (("kind", KINDS), ("curve", CURVES)):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"unknown guidance {name} {getattr(self, name)!r}",
                    where=f"guidance.{name}",
                    cure=f"choose {', '.join(choices)}",
                )
        if not (math.isfinite(self.scale) and self.scale >= 0):
            cure = "0 or more; 1, and 0 as in diffusers, means no guidance"
            raise ConfigError(f"scale={self.scale!r}", where="guidance.scale", cure=cure)
        if self.scale == 0:  # 0 would ignore the prompt
            object.__setattr__(self, "scale", 1.0)
        if len(self.interval) != 2 or not 0 <= self.interval[0] <= self.interval[1] <= 1:
            raise ConfigError(
                f"interval={self.interval}",
                where="guidance.interval",
                cure="[from, to], 0 (noise) to 1 (data)",
            )
        for name in ("rescale", "eta", "zero_until", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name}={getattr(self, name)}",
                    where=f"guidance.{name}",
                    cure="between 0 and 1",
                )
        if not (0 < self.peak < 1 and self.norm_limit >= 0 and self.threshold_bound > 0):
            raise ConfigError(
                f"peak={self.peak}, norm_limit={self.norm_limit}, "
                f"threshold_bound={self.threshold_bound}",
                where="guidance",
                cure="0 < peak < 1, norm_limit >= 0, threshold_bound > 0",
            )

    def scale_at(self, share: float) -> float:
        """The scale at a progress from noise (0) to data (1); 1 outside the interval."""
        low, high = self.interval
        if not low <= share <= high:
            return 1.0
        return self.scale if self.curve == "constant" else triangle(share, self.scale, self.peak)

    def is_zero_init_step(self, share: float) -> bool:
        """True in CFG-Zero's initial part of the path, where the velocity is taken as zero."""
        return self.kind == "cfg_zero" and share < self.zero_until

    def combine(
        self,
        cond: Float[Tensor, "b ..."],
        uncond: Float[Tensor, "b ..."],
        x: Float[Tensor, "b ..."],
        t: Float[Tensor, " b"],
        path: Path,
        scale: float,
    ) -> Float[Tensor, "b ..."]:
        """The guided velocity at this t; `scale` comes from `scale_at`."""
        if self.kind == "apg":
            x0, _ = to_data_and_noise("velocity", cond, x, t, path)
            limit = self.norm_limit * velocity_per_data(path, t) if self.norm_limit else None
            guided = apg(cond, uncond, scale, x0, self.eta, limit)
        else:
            guided = (cfg_zero if self.kind == "cfg_zero" else cfg)(cond, uncond, scale)
        if self.rescale:
            guided = rescale(guided, cond, self.rescale)
        if self.threshold:
            x0, _ = to_data_and_noise("velocity", guided, x, t, path)
            x0 = dynamic_threshold(x0, self.threshold, self.threshold_bound)
            guided = convert(x0, x, t, path, "x0", "velocity")
        return guided


def velocity_per_data(path: Path, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """|d velocity / d x0| at fixed x_t: |alpha sigma' - sigma alpha'| / sigma."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    return (alpha * path.sigma_rate(t) - sigma * path.alpha_rate(t)).abs() / sigma.clamp_min(1e-8)
