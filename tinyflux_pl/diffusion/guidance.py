"""Guidance: combining a conditional and an unconditional velocity.

`Guidance` selects a rule (guidance_rules), its strength, its curve and its interval. Interval and
curve are over the level of noise, as the data's share alpha / (alpha + sigma), not over steps: they
mean the same under any shift and on any path. Outside the interval, and at scale 1, the
unconditional is not evaluated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.diffusion import guidance_curves, guidance_rules
from tinyflux_pl.diffusion.guidance_curves import CURVES
from tinyflux_pl.diffusion.guidance_rules import Momentum
from tinyflux_pl.diffusion.paths import expand_like
from tinyflux_pl.diffusion.prediction import convert, to_data_and_noise

KINDS = ("cfg", "apg", "cfg_zero")


@dataclass(frozen=True)
class Guidance:
    """Strength and rule of guidance, and the levels of noise where it applies.

    kind cfg | apg | cfg_zero; curve constant | triangle | cosine, highest at `peak`, with the mean
    of `scale` over the steps inside the interval. eta, norm_limit (0: none) and momentum (0: none;
    below 0 in the paper) are APG's; zero_until is the progress up to which CFG-Zero does not move
    (0.04 in the paper, 0 for few steps); threshold is the percentile of dynamic thresholding (0:
    none), threshold_bound the data's range. skip_layers are blocks, counted from the first, without
    which the network is asked once more inside skip_interval, to be led away from its answer by
    skip_scale (skip-layer guidance). embedded is no rule: it is the guidance input of a distilled
    network (None: none); negative is the prompt of the unconditional (None: the text encoder's
    null()). Scale 0 means 1, as in diffusers.
    """

    scale: float = 5.0
    kind: str = "cfg"
    interval: Sequence[float] = (0.0, 1.0)
    rescale: float = 0.0
    curve: str = "constant"
    peak: float = 0.5
    eta: float = 0.0
    norm_limit: float = 0.0
    momentum: float = 0.0
    zero_until: float = 0.0
    threshold: float = 0.0
    threshold_bound: float = 1.0
    skip_layers: Sequence[int] = ()
    skip_scale: float = 2.8
    skip_interval: Sequence[float] = (0.01, 0.2)
    embedded: float | None = None
    negative: str | None = None

    def __post_init__(self) -> None:
        for name in ("interval", "skip_interval"):
            object.__setattr__(self, name, tuple(float(x) for x in getattr(self, name)))
        object.__setattr__(self, "skip_layers", tuple(int(i) for i in self.skip_layers))
        self._require_choices()
        self._require_ranges()
        if self.scale == 0:  # 0 would ignore the prompt
            object.__setattr__(self, "scale", 1.0)

    def _require_choices(self) -> None:
        for name, choices in (("kind", KINDS), ("curve", tuple(CURVES))):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"unknown guidance {name} {getattr(self, name)!r}",
                    where=f"guidance.{name}",
                    cure=f"choose {', '.join(choices)}",
                )

    def _require_ranges(self) -> None:
        if not (math.isfinite(self.scale) and self.scale >= 0):
            cure = "0 or more; 1, and 0 as in diffusers, means no guidance"
            raise ConfigError(f"scale={self.scale!r}", where="guidance.scale", cure=cure)
        for name in ("interval", "skip_interval"):
            ends = getattr(self, name)
            if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= 1:
                raise ConfigError(
                    f"{name}={ends}",
                    where=f"guidance.{name}",
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
        if not (-1 < self.momentum < 1 and math.isfinite(self.skip_scale)):
            raise ConfigError(
                f"momentum={self.momentum}, skip_scale={self.skip_scale}",
                where="guidance",
                cure="-1 < momentum < 1 (below 0 in the paper), and a finite skip_scale",
            )
        if any(layer < 0 for layer in self.skip_layers):
            raise ConfigError(
                f"skip_layers={list(self.skip_layers)}",
                where="guidance.skip_layers",
                cure="numbers of blocks, from 0: guidance.skip_layers=[7,8,9]",
            )

    def scale_at(self, level: float, gain: float = 1.0) -> float:
        """The scale at a level of noise (0) to data (1); 1 outside the interval.

        `gain` is that of `gain_on` for the steps that are taken.
        """
        low, high = self.interval
        if not low <= level <= high:
            return 1.0
        if self.curve == "constant":
            return self.scale
        return 1 + (self.scale - 1) * gain * CURVES[self.curve](level, self.peak)

    def gain_on(self, levels: Sequence[float]) -> float:
        """The factor with which the curve's mean over these steps is `scale`.

        A step counts by its length in levels, where it begins inside the interval.
        """
        low, high = self.interval
        steps = [(a, b - a) for a, b in itertools.pairwise(levels) if low <= a <= high]
        heights = [CURVES[self.curve](level, self.peak) for level, _ in steps]
        return guidance_curves.gain(heights, [length for _, length in steps])

    def skips_at(self, level: float) -> bool:
        """True where skip-layer guidance needs a further evaluation."""
        low, high = self.skip_interval
        return bool(self.skip_layers) and self.skip_scale != 0 and low <= level <= high

    def is_zero_init_step(self, share: float) -> bool:
        """True in CFG-Zero's initial part of the path, where the velocity is taken as zero."""
        return self.kind == "cfg_zero" and share < self.zero_until

    def combine(
        self,
        cond: Float[Tensor, "b ..."],
        uncond: Float[Tensor, "b ..."] | None,
        x: Float[Tensor, "b ..."],
        t: Float[Tensor, " b"],
        path: Path,
        scale: float,
        *,
        skipped: Float[Tensor, "b ..."] | None = None,
        momentum: Momentum | None = None,
    ) -> Float[Tensor, "b ..."]:
        """The guided velocity at this t; `scale` comes from `scale_at`.

        `skipped` is the conditional velocity without skip_layers; `momentum` remembers APG's
        differences of one image batch.
        """
        guided = cond
        if uncond is not None:
            guided = self._by_rule(cond, uncond, x, t, path, scale, momentum)
        if skipped is not None:
            guided = guided + self.skip_scale * (cond - skipped)
        if self.rescale:
            guided = guidance_rules.rescale(guided, cond, self.rescale)
        if self.threshold:
            x0, _ = to_data_and_noise("velocity", guided, x, t, path)
            x0 = guidance_rules.dynamic_threshold(x0, self.threshold, self.threshold_bound)
            guided = convert(x0, x, t, path, "x0", "velocity")
        return guided

    def _by_rule(
        self,
        cond: Tensor,
        uncond: Tensor,
        x: Tensor,
        t: Tensor,
        path: Path,
        scale: float,
        momentum: Momentum | None,
    ) -> Tensor:
        if self.kind == "cfg":
            return guidance_rules.cfg(cond, uncond, scale)
        if self.kind == "cfg_zero":
            return guidance_rules.cfg_zero(cond, uncond, scale)
        x0, _ = to_data_and_noise("velocity", cond, x, t, path)
        factor = velocity_per_data(path, t)
        difference = cond - uncond
        if momentum is not None:  # the past has other levels: it is added as data
            rate = expand_like(factor, cond)
            difference = momentum.update(difference / rate) * rate
        limit = self.norm_limit * factor if self.norm_limit else None
        return guidance_rules.apg(cond, difference, scale, x0, self.eta, limit)


def velocity_per_data(path: Path, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """|d velocity / d x0| at fixed x_t: |alpha sigma' - sigma alpha'| / sigma."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    return (alpha * path.sigma_rate(t) - sigma * path.alpha_rate(t)).abs() / sigma.clamp_min(1e-8)
