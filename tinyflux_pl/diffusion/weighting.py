"""Loss weights as functions of the log-SNR.

Min-SNR (Hang et al. 2023, 2303.09556) weights the squared error of x0 by min(snr, gamma). What a
network predicts has another error, because x_t is known: with d = error of x0 and
alpha d + sigma d_noise = 0,

    noise:            d_noise = -(alpha / sigma) d                |.|^2 = snr |d|^2
    v, VP:            alpha d_noise - sigma d = -d / sigma        |.|^2 = (snr + 1) |d|^2
    velocity, linear: +-(d - d_noise) = +-d / sigma               |.|^2 = (1 + sqrt(snr))^2 |d|^2

(alpha^2 + sigma^2 = 1 in the second line, alpha + sigma = 1 and hence 1 / sigma = 1 + sqrt(snr) in
the third). The weight on each loss is min(snr, gamma) divided by its factor. The original TinyFlux
applied the noise form to velocities, which damps clean times about 1/snr: `literal`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError

WEIGHTINGS = ("uniform", "min_snr", "min_snr_literal")


def uniform(log_snr: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """1 for every sample."""
    return torch.ones_like(log_snr)


def min_snr(
    log_snr: Float[Tensor, " b"], prediction: str, gamma: float = 5.0
) -> Float[Tensor, " b"]:
    """min(snr, gamma) over the factor of the predicted quantity.

    `velocity` is the linear path's.
    """
    # min(snr, gamma) / snr = min(1, gamma / snr) and so on: nothing overflows at either end
    snr = log_snr.exp()
    capped = snr.clamp_max(gamma)
    if prediction == "x0":
        return capped
    if prediction == "epsilon":
        return (gamma * (-log_snr).exp()).clamp_max(1.0)
    if prediction == "v":
        return capped / (1 + snr)
    if prediction == "velocity":
        return capped / (1 + (log_snr / 2).exp()).square()
    raise ConfigError(
        f"no min-SNR weight for prediction {prediction!r}",
        where="weighting",
        cure="velocity, epsilon, x0 or v",
    )


def min_snr_literal(log_snr: Float[Tensor, " b"], gamma: float = 5.0) -> Float[Tensor, " b"]:
    """The original's min(snr, gamma) / max(snr, 1e-5), with its floor of 1e-5 under sigma."""
    snr = log_snr.exp().clamp_max(1e10)
    return snr.clamp_max(gamma) / snr.clamp_min(1e-5)


@dataclass(frozen=True)
class Weighting:
    """The weight of a sample's loss: uniform, min_snr, or min_snr_literal (the original's)."""

    kind: str = "uniform"
    gamma: float = 5.0

    def __post_init__(self) -> None:
        if self.kind not in WEIGHTINGS:
            raise ConfigError(
                f"unknown weighting {self.kind!r}",
                where="weighting.kind",
                cure=f"choose {', '.join(WEIGHTINGS)}",
            )
        if not self.gamma > 0:
            raise ConfigError(
                f"gamma={self.gamma!r}",
                where="weighting.gamma",
                cure="a positive number, usually 5",
            )

    def __call__(self, log_snr: Float[Tensor, " b"], prediction: str) -> Float[Tensor, " b"]:
        """Weights (B,) for a loss on `prediction`."""
        if self.kind == "uniform":
            return uniform(log_snr)
        if self.kind == "min_snr":
            return min_snr(log_snr, prediction, self.gamma)
        return min_snr_literal(log_snr, self.gamma)
