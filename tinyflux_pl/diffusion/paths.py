"""Paths from noise to data, x_t = alpha(t) data + sigma(t) noise, which own the time convention.

No other file writes `1 - t`: code that depends on which end is noise asks the path.
Times are fp32 (fp64 in tests); half precision is refused, since bf16 has 129 values in [0.5, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.diffusion.mixture import SMALLEST, Mixture, expand_like, require_fp32_time
from tinyflux_pl.diffusion.variance_preserving import EDMPath, VPPath

__all__ = [
    "PATHS",
    "EDMPath",
    "LinearPath",
    "VPPath",
    "build_path",
    "data_share",
    "expand_like",
    "match_log_snr",
    "progress_toward",
    "time_at",
]


@dataclass(frozen=True)
class LinearPath(Mixture):
    """Rectified flow, with noise at t = 0 (TinyFlux) or at t = 1 (FLUX, SD3), by `noise_at`.

    Liu et al. 2022 (2209.03003). The velocity is data - noise, or noise - data, at every t.
    """

    noise_at: int = 0
    name: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        if self.noise_at not in (0, 1):
            raise ConfigError(
                f"noise_at={self.noise_at!r}", where="LinearPath", cure="0 (TinyFlux) or 1 (FLUX)"
            )

    @property
    def t_noise(self) -> float:
        """The time of pure noise."""
        return float(self.noise_at)

    @property
    def t_data(self) -> float:
        """The time of clean data."""
        return 1.0 - self.noise_at

    def alpha(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Coefficient of the data."""
        return require_fp32_time(t) if self.noise_at == 0 else 1 - require_fp32_time(t)

    def sigma(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Coefficient of the noise."""
        return 1 - require_fp32_time(t) if self.noise_at == 0 else require_fp32_time(t)

    def alpha_rate(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """d alpha / dt."""
        return torch.full_like(require_fp32_time(t), self.t_data - self.t_noise)

    def sigma_rate(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """d sigma / dt."""
        return torch.full_like(require_fp32_time(t), self.t_noise - self.t_data)

    def log_snr(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """2 log(alpha / sigma), finite at both ends."""
        return 2 * (
            self.alpha(t).clamp_min(SMALLEST).log() - self.sigma(t).clamp_min(SMALLEST).log()
        )

    def time_of_log_snr(self, log_snr: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The inverse: alpha = sigmoid(log_snr / 2), since alpha + sigma = 1."""
        half = require_fp32_time(log_snr) / 2
        return torch.sigmoid(half if self.noise_at == 0 else -half)


PATHS = {"linear": LinearPath, "vp": VPPath, "edm": EDMPath}


def build_path(name: str, config: dict[str, Any] | None = None) -> LinearPath | VPPath | EDMPath:
    """Rebuild the path that was saved as (name, config())."""
    if name not in PATHS:
        raise ConfigError(
            f"unknown path {name!r}", where="path", cure=f"choose {', '.join(sorted(PATHS))}"
        )
    settings = PATHS[name].__dataclass_fields__
    for key in config or {}:
        if key not in settings:
            raise ConfigError(
                f"{name} path has no setting {key!r}",
                where="path",
                cure=f"choose {', '.join(sorted(settings))}",
            )
    return PATHS[name](**(config or {}))


def match_log_snr(source: Path, target: Path, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The time on `target` with the log-SNR that `source` has at t."""
    return target.time_of_log_snr(source.log_snr(t))


def progress_toward(path: Path, t: Float[Tensor, "*b"], toward: str) -> Float[Tensor, "*b"]:
    """Progress of t toward an end (noise or data) of the path: 0 at the other end, 1 there."""
    end, start = (path.t_noise, path.t_data) if toward == "noise" else (path.t_data, path.t_noise)
    return (require_fp32_time(t) - start) / (end - start)


def data_share(path: Path, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The level of noise as alpha / (alpha + sigma): 0 in pure noise, 1 in clean data.

    Equal to the progress toward data on the linear path.
    """
    alpha, sigma = path.alpha(t), path.sigma(t)
    return alpha / (alpha + sigma)


def time_at(path: Path, share: Float[Tensor, "*b"], toward: str) -> Float[Tensor, "*b"]:
    """The inverse of `progress_toward`."""
    end, start = (path.t_noise, path.t_data) if toward == "noise" else (path.t_data, path.t_noise)
    return start + require_fp32_time(share) * (end - start)
