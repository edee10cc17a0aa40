"""Solvers of dx/dt = field(x, t) along a grid of times from noise to data.

The velocity at (x, t) implies clean data x0 and noise with x = alpha(t) x0 + sigma(t) noise; a step
mixes them again at the next time. On the linear path this is the ordinary step x + dt * velocity;
on any path it is DDIM's, exact however alpha and sigma move between two times. Second-order steps
correct x0 first. The state is fp32 (fp64 in tests). `grid` may stay on the CPU: the field receives
CPU times, so that reading one never synchronises the GPU.

Where the grid ends in clean data the field is not evaluated at its last time, which no network has
seen, and the last step is first order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
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
from tinyflux_pl.diffusion.unipc import unipc


@torch.no_grad()
def euler(
    field: Field,
    x: Float[Tensor, "b ..."],
    grid: Float[Tensor, " n"],
    path: Path,
    on_step: OnStep | None = None,
    fresh_noise: FreshNoise | None = None,
) -> Float[Tensor, "b ..."]:
    """First order, one evaluation a step. DDIM (Song et al. 2020, 2010.02502) on a VP path."""
    t_model, t = times_of(grid, x)
    for i in range(len(grid) - 1):
        x0, noise = to_data_and_noise("velocity", field(x, t_model[i]), x, t[i], path)
        x = path.interpolate(x0, noise, t[i + 1])
        if on_step:
            on_step(i, x)
    return x


@torch.no_grad()
def heun(
    field: Field,
    x: Float[Tensor, "b ..."],
    grid: Float[Tensor, " n"],
    path: Path,
    on_step: OnStep | None = None,
    fresh_noise: FreshNoise | None = None,
) -> Float[Tensor, "b ..."]:
    """Second order, two evaluations a step, one where it ends in data.

    Karras et al. 2022 (2206.00364), algorithm 1: the mean slope of an Euler step's two ends. The
    slope is that of x / (alpha + sigma) over alpha / (alpha + sigma), which is x0 - noise: a
    straight line on every path.
    """
    t_model, t = times_of(grid, x)
    correctable = second_order_steps(grid, path)
    for i in range(len(grid) - 1):
        x0, noise = to_data_and_noise("velocity", field(x, t_model[i]), x, t[i], path)
        x_next = path.interpolate(x0, noise, t[i + 1])
        if i < correctable:
            velocity = field(x_next, t_model[i + 1])
            x0_next, noise_next = to_data_and_noise("velocity", velocity, x_next, t[i + 1], path)
            half_slope_change = ((x0_next - noise_next) - (x0 - noise)) / 2
            alpha, sigma = path.alpha(t[i]), path.sigma(t[i])
            change = expand_like(sigma / (alpha + sigma), x) * half_slope_change
            x_next = path.interpolate(*change_data(x0, noise, change, t[i], path), t[i + 1])
        x = x_next
        if on_step:
            on_step(i, x)
    return x


@torch.no_grad()
def dpmpp_2m(
    field: Field,
    x: Float[Tensor, "b ..."],
    grid: Float[Tensor, " n"],
    path: Path,
    on_step: OnStep | None = None,
    fresh_noise: FreshNoise | None = None,
) -> Float[Tensor, "b ..."]:
    """Second order multistep in x0 over the half log-SNR, one evaluation a step.

    DPM-Solver++ 2M, Lu et al. 2022 (2211.01095), algorithm 2. The first step has no past, and a
    step that ends in data has infinite length: both are first order.
    """
    t_model, t = times_of(grid, x)
    correctable = second_order_steps(grid, path)
    past: Past | None = None
    for i in range(len(grid) - 1):
        x0, noise = to_data_and_noise("velocity", field(x, t_model[i]), x, t[i], path)
        length = expand_like((path.log_snr(t[i + 1]) - path.log_snr(t[i])) / 2, x)
        target = (x0, noise)
        if past is not None and i < correctable:
            change = predicted_change(x0, past, length)
            target = change_data(x0, noise, change, t[i], path)
        x = path.interpolate(*target, t[i + 1])
        past = (x0, length)
        if on_step:
            on_step(i, x)
    return x


@torch.no_grad()
def euler_ancestral(
    field: Field,
    x: Float[Tensor, "b ..."],
    grid: Float[Tensor, " n"],
    path: Path,
    on_step: OnStep | None = None,
    fresh_noise: FreshNoise | None = None,
) -> Float[Tensor, "b ..."]:
    """Euler with partly fresh noise in every step, by k-diffusion's rule for x / alpha.

    ConfigError on a path whose first time holds no data at all, and without `fresh_noise`.
    """
    t_model, t = times_of(grid, x)
    ratios = (path.sigma(grid) / path.alpha(grid)).tolist()  # on the host, where the grid is
    if fresh_noise is None or not math.isfinite(ratios[0]):
        cure = "sampler.solver=euler"
        raise ConfigError(
            "euler_ancestral needs some data at its first time", where="sampler.solver", cure=cure
        )
    for i in range(len(grid) - 1):
        x0, noise = to_data_and_noise("velocity", field(x, t_model[i]), x, t[i], path)
        # of the noise that stays; the squares add up to 1
        share = min(ratios[i + 1] / ratios[i], 1.0)
        noise = share * noise + math.sqrt(1 - share**2) * fresh_noise(i)
        x = path.interpolate(x0, noise, t[i + 1])
        if on_step:
            on_step(i, x)
    return x


SOLVERS = {
    "euler_ancestral": euler_ancestral,
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "unipc": unipc,
}


def solver_named(name: str) -> Callable[..., Tensor]:
    """The solver of that name; ConfigError names the valid ones."""
    if name not in SOLVERS:
        cure = f"choose {', '.join(SOLVERS)}"
        raise ConfigError(f"unknown solver {name!r}", where="sampler.solver", cure=cure)
    return SOLVERS[name]
