"""Factors of input channels that balance a layer's range between activations and weights.

X W^T = (X / s) (W s)^T for any s > 0: neutral before rounding, and after it the channel that was
hard to round is easier. SmoothQuant: Xiao et al. 2022 (2211.10438). PTQ4DiT: Wu et al. 2024
(2405.16005), its channel-wise salience balancing and Spearman's rho-guided salience calibration.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

METHODS = ("smoothquant", "ptq4dit")
ALPHA = 0.5  # SmoothQuant's migration strength
Maxima = Float[Tensor, "t k"]  # of |X| in each forward pass, by input channel
Factors = Float[Tensor, " k"]


def smoothquant(activations: Maxima, weight: Float[Tensor, "n k"], alpha: float = ALPHA) -> Factors:
    """max|X_j|^alpha / max|W_j|^(1 - alpha), of the largest activation over all passes."""
    largest, salience = activations.amax(0), weight.abs().amax(0)
    return _usable(largest.pow(alpha) / salience.pow(1 - alpha))


def ptq4dit(activations: Maxima, weight: Float[Tensor, "n k"]) -> Factors:
    """sqrt(s_X / s_W): both saliences become their geometric mean.

    s_X is the mean of the passes' maxima, of which those count more that rank the channels
    otherwise than the weights do: weights softmax(-rho) with Spearman's rho.
    """
    salience = weight.abs().amax(0)
    shares = torch.softmax(-spearman(activations, salience), 0)
    return _usable(((shares[:, None] * activations).sum(0) / salience).sqrt())


def spearman(rows: Maxima, column: Factors) -> Float[Tensor, " t"]:
    """Spearman's rank correlation of each row with a column; ties in the order of the channels."""

    def centred_ranks(values: Tensor) -> Tensor:
        ranks = values.argsort(dim=-1, stable=True).argsort(dim=-1).double()
        return ranks - ranks.mean(-1, keepdim=True)

    a, b = centred_ranks(rows), centred_ranks(column)
    return (a @ b / (a.norm(dim=-1) * b.norm()).clamp_min(1e-12)).to(rows.dtype)


def factors(method: str, activations: Maxima, weight: Float[Tensor, "n k"]) -> Factors:
    """The factors by a method of METHODS, in fp32."""
    rule = {"smoothquant": smoothquant, "ptq4dit": ptq4dit}[method]
    return rule(activations.float(), weight.detach().float())


def _usable(values: Factors) -> Factors:
    """The values, with 1 for channels that are always 0 on one side."""
    return torch.where(values.isfinite() & (values > 0), values, torch.ones_like(values))
