"""UniPC of order two: a predictor, and a corrector that costs no further evaluation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.protocols import Path
from tinyflux_pl.diffusion.paths import expand_like
from tinyflux_pl.diffusion.prediction import to_data_and_noise
from tinyflux_pl.diffusion.solver_steps import (
    Field,
    FreshNoise,
    OnStep,
    Past,
    change_data,
    predicted_change,
    second_order_steps,
    times_of,
)


@torch.no_grad()
def unipc(
    field: Field,
    x: Float[Tensor, "b ..."],
    grid: Float[Tensor, " n"],
    path: Path,
    on_step: OnStep | None = None,
    fresh_noise: FreshNoise | None = None,
) -> Float[Tensor, "b ..."]:
    """Third order from one evaluation a step: UniPC-2 in x0 over the half log-SNR, with B2(h).

    Zhao et al. 2023 (2302.04867). The predictor is that of DPM-Solver++ 2M. The velocity at a
    predicted state first corrects that state, then begins the next step; a step that ends in data
    is first order and stays uncorrected.
    """
    t_model, t = times_of(grid, x)
    steps, correctable = len(grid) - 1, second_order_steps(grid, path)
    x0, noise = to_data_and_noise("velocity", field(x, t_model[0]), x, t[0], path)
    past: Past | None = None
    for i in range(steps):
        length = expand_like((path.log_snr(t[i + 1]) - path.log_snr(t[i])) / 2, x)
        change = predicted_change(x0, past, length) if i < correctable else torch.zeros_like(x0)
        x_next = path.interpolate(*change_data(x0, noise, change, t[i], path), t[i + 1])
        if i + 1 < steps:
            velocity = field(x_next, t_model[i + 1])
            x0_next, _ = to_data_and_noise("velocity", velocity, x_next, t[i + 1], path)
            change = corrected_change(x0, x0_next, past, length)
            x_next = path.interpolate(*change_data(x0, noise, change, t[i], path), t[i + 1])
            past = (x0, length)
            # the noise beside this x0 in the corrected state
            alpha, sigma = path.alpha(t[i + 1]), path.sigma(t[i + 1])
            noise = (x_next - expand_like(alpha, x) * x0_next) / expand_like(sigma, x)
            x0 = x0_next
        x = x_next
        if on_step:
            on_step(i, x)
    return x


def corrected_change(x0: Tensor, x0_next: Tensor, past: Past | None, length: Tensor) -> Tensor:
    """The UniC correction from the next x0 and the past one.

    It makes the step exact for x0 quadratic in the half log-SNR; in the first step half the
    difference is used.
    """
    if past is None:
        return (x0_next - x0) / 2
    x0_before, length_before = past
    ratio = -length_before / length  # where the past lies, in steps
    b1, b2 = moments(length)
    weight_past = (b1 - b2) / (1 - ratio)
    slope_past = (x0_before - x0) / ratio
    return weight_past * slope_past + (b1 - weight_past) * (x0_next - x0)


def moments(length: Tensor) -> tuple[Tensor, Tensor]:
    """k! h phi_(k+1)(h) / B2(h) for k = 1, 2, with h the negative length and B2(h) = e^h - 1."""
    h = -length
    grown = torch.expm1(h)
    first = grown / h - 1
    second = first / h - 0.5
    return first / grown, 2 * second / grown
