"""Solvers of dx/dt = field(x, t) along a grid of times from noise to data.

Every path is a linear one in other coordinates: y = x / (alpha + sigma) moves with
r = alpha / (alpha + sigma), and dy/dr = x0 - noise. Euler and Heun step y over r. On the linear
path y = x and this is the ordinary step x + dt * velocity; on any path the Euler step is DDIM's,
exact whatever the path's clock does between two times. The state is fp32 (fp64 in tests).
The grid may stay on the host, and the field is told its times there, so that nobody waits to read them.

Where the grid ends in clean data the field is not evaluated at its last time, which no network has
seen, and the last step is first order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.paths import over
from tinyflux_pl.diffusion.prediction import to_data_and_noise

Field = Callable[[Tensor, Tensor], Tensor]
Fresh = Callable[[int], Tensor]  # noise like x for the step of that index; only ancestral solvers ask for any
OnStep = Callable[[int, Tensor], None]  # called after each step with its index and the new state


def _split(field: Field, x: Tensor, told: Tensor, t: Tensor, path: Any) -> tuple[Tensor, Tensor]:
    """(x0, noise) according to the field at x and t, the time that it is `told`."""
    return to_data_and_noise("velocity", field(x, told), x, t, path)


def _open_steps(grid: Tensor, path: Any) -> int:
    """How many steps end in some noise, where second order is possible: all, or all but the last."""
    return len(grid) - 1 - int(float(path.sigma(grid[-1:])[0]) == 0)


def _times(grid: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Times (steps + 1, B), every sample at the same one: where the grid is, and where x is."""
    told, there = (times[:, None].expand(-1, x.shape[0]) for times in (grid, grid.to(x.device)))
    return told, there


def _ratio(path: Any, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """r = alpha / (alpha + sigma) and the scale alpha + sigma, shaped like x."""
    scale = path.alpha(t) + path.sigma(t)
    return over(path.alpha(t) / scale, x), over(scale, x)


@torch.no_grad()
def euler(
    field: Field,
    x: Float[Tensor, "b ..."],
    grid: Float[Tensor, " n"],
    path: Any,
    on_step: OnStep | None = None,
    fresh: Fresh | None = None,
) -> Float[Tensor, "b ..."]:
    """First order, one evaluation a step. DDIM (Song et al. 2020, 2010.02502) on a VP path."""
    told, times = _times(grid, x)
    for i in range(len(grid) - 1):
        x0, noise = _split(field, x, told[i], times[i], path)
        (r, scale), (r_next, scale_next) = _ratio(path, times[i], x), _ratio(path, times[i + 1], x)
        x = scale_next * (x / scale + (r_next - r) * (x0 - noise))
        if on_step:
            on_step(i, x)
    return x


@torch.no_grad()
def heun(
    field: Field,
    x: Float[Tensor, "b ..."],
    grid: Float[Tensor, " n"],
    path: Any,
    on_step: OnStep | None = None,
    fresh: Fresh | None = None,
) -> Float[Tensor, "b ..."]:
    """Second order, two evaluations a step, one where it ends in data. Karras et al. 2022 (2206.00364), algorithm 1."""
    (told, times), open_steps = _times(grid, x), _open_steps(grid, path)
    for i in range(len(grid) - 1):
        x0, noise = _split(field, x, told[i], times[i], path)
        (r, scale), (r_next, scale_next) = _ratio(path, times[i], x), _ratio(path, times[i + 1], x)
        y, slope = x / scale, x0 - noise
        ahead = scale_next * (y + (r_next - r) * slope)
        if i < open_steps:
            x0, noise = _split(field, ahead, told[i + 1], times[i + 1], path)
            ahead = scale_next * (y + (r_next - r) * (slope + x0 - noise) / 2)
        x = ahead
        if on_step:
            on_step(i, x)
    return x


@torch.no_grad()
def dpmpp_2m(
    field: Field,
    x: Float[Tensor, "b ..."],
    grid: Float[Tensor, " n"],
    path: Any,
    on_step: OnStep | None = None,
    fresh: Fresh | None = None,
) -> Float[Tensor, "b ..."]:
    """Second order multistep in x0 over the half log-SNR, one evaluation a step.

    DPM-Solver++ 2M, Lu et al. 2022 (2211.01095), algorithm 2. The first step has no past, and a
    step that ends in data has infinite length: both are first order.
    """
    (told, times), open_steps = _times(grid, x), _open_steps(grid, path)
    past: tuple[Tensor, Tensor] | None = None  # x0 one step ago, and that step's length
    for i in range(len(grid) - 1):
        x0, _ = _split(field, x, told[i], times[i], path)
        length = over((path.log_snr(times[i + 1]) - path.log_snr(times[i])) / 2, x)
        ahead = x0
        if past is not None and i < open_steps:
            ahead = x0 + (x0 - past[0]) * length / (2 * past[1])
        sigma, sigma_next = over(path.sigma(times[i]), x), over(path.sigma(times[i + 1]), x)
        x = sigma_next / sigma * x - over(path.alpha(times[i + 1]), x) * torch.expm1(-length) * ahead
        past = (x0, length)
        if on_step:
            on_step(i, x)
    return x


@torch.no_grad()
def euler_ancestral(
    field: Field,
    x: Float[Tensor, "b ..."],
    grid: Float[Tensor, " n"],
    path: Any,
    on_step: OnStep | None = None,
    fresh: Fresh | None = None,
) -> Float[Tensor, "b ..."]:
    """Euler to less noise than the next time has, the rest anew. k-diffusion's rule in x / alpha, where data is seen.

    ConfigError on a path whose first time holds no data at all, and without `fresh` noise.
    """
    told, times = _times(grid, x)
    ratios = (path.sigma(grid) / path.alpha(grid)).tolist()  # on the host, where the grid is
    if fresh is None or not math.isfinite(ratios[0]):
        cure = "sampler.solver=euler"
        raise ConfigError("euler_ancestral needs some data at its first time", where="sampler.solver", cure=cure)
    for i in range(len(grid) - 1):
        x0, noise = _split(field, x, told[i], times[i], path)
        high, low = ratios[i], ratios[i + 1]
        up = low * math.sqrt(max(high**2 - low**2, 0.0)) / high
        down = math.sqrt(max(low**2 - up**2, 0.0))
        x = over(path.alpha(times[i + 1]), x) * (x0 + down * noise + up * fresh(i))
        if on_step:
            on_step(i, x)
    return x


SOLVERS = {"euler_ancestral": euler_ancestral, "euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m}


def solver_named(name: str) -> Callable[..., Tensor]:
    """The solver of that name; ConfigError names the valid ones."""
    if name not in SOLVERS:
        raise ConfigError(f"unknown solver {name!r}", where="sampler.solver", cure=f"one of {tuple(SOLVERS)}")
    return SOLVERS[name]
