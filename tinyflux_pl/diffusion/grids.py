"""Time grids of samplers, from noise to data, spaced as by the schedulers of the releases."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.diffusion.paths import time_at
from tinyflux_pl.diffusion.shifts import check_shift, flux_shift, shift_time

FLOW = ("even", "sd3", "table")
# of a table of betas
ENTRIES = ("leading", "trailing", "linspace", "leading_open", "linspace_open", "whole")
SPACINGS = (*FLOW, *ENTRIES)
SIGMAS = ("spaced", "karras", "exponential")
FINALS = ("data", "table")
TABLE = 1000  # entries of the tables that Stability's networks were trained on
RHO = 7.0  # Karras et al. 2022 (2206.00364), equation 5


def grid(
    steps: int,
    path: Path,
    shift: float = 1.0,
    toward: str = "noise",
    spacing: str = "even",
    *,
    offset: int = 1,
    sigmas: str = "spaced",
    final: str = "data",
) -> Float[Tensor, " n"]:
    """Times in fp32 from noise to data, the shift applied once.

    even: steps + 1 of them, from t_noise to t_data, even before the shift. sd3: steps of them down
    to the first entry of a shifted table, itself shifted again, then t_data (SD3's reference, and
    diffusers' scheduler where it is told a number of steps). table: the same with the ends of a
    table that is not shifted. Of a table of betas come whole or fractional entries; the last is not
    t_data, and a sampler reads the data off there, or with final="table" takes one more step to the
    table's first entry. leading: every (TABLE // steps)-th, counted from `offset`; trailing: every
    (TABLE / steps)-th, counted from the last; linspace: from the last to the first; whole: the
    same, a single step from the last. The open ones are steps + 1 entries without the lowest.
    sigmas: karras and exponential keep the first and the last level of noise and space the others
    anew.
    """
    if steps < 1:
        raise ConfigError(f"steps={steps}", where="sampling grid", cure="at least 1")
    check_shift(shift, toward, "sampling grid")
    check_spacing(spacing, steps, shift, toward)
    if spacing in ENTRIES:
        share = _entries(spacing, steps, offset).clamp(0, TABLE - 1) / (TABLE - 1)
        times = _respaced(time_at(path, share.float(), "noise"), path, sigmas)
        return times if final == "data" else torch.cat([times, times.new_tensor([path.t_data])])
    if spacing == "even":
        times = shift_time(
            torch.linspace(path.t_noise, path.t_data, steps + 1), shift, path, toward
        )
    else:
        low = float(flux_shift(torch.tensor(1 / TABLE), shift)) if spacing == "sd3" else 1 / TABLE
        times = shift_time(time_at(path, torch.linspace(1.0, low, steps), "noise"), shift, path)
        times = torch.cat([times, times.new_tensor([path.t_data])])
    times[0], times[-1] = path.t_noise, path.t_data  # s / (1 + (s - 1)) may round beside 1
    return times


def _entries(spacing: str, steps: int, offset: int) -> Float[Tensor, " n"]:
    """Entries of a table of TABLE, from the noisiest, fp64."""
    top = TABLE - 1
    if spacing == "leading":
        return (torch.arange(steps - 1, -1, -1) * (TABLE // steps) + offset).double()
    if spacing == "leading_open":
        return (torch.arange(steps, 0, -1) * (TABLE // (steps + 1)) + offset).double()
    if spacing == "trailing":
        return (TABLE - torch.arange(steps, dtype=torch.float64) * (TABLE / steps)).round() - 1
    if spacing == "linspace_open":
        return torch.linspace(0, top, steps + 1, dtype=torch.float64).round().flip(0)[:-1]
    if spacing == "whole":
        return torch.linspace(top, 0, steps, dtype=torch.float64)
    return torch.linspace(0, top, steps, dtype=torch.float64).flip(0)


def _respaced(times: Float[Tensor, " n"], path: Path, sigmas: str) -> Float[Tensor, " n"]:
    """Times with other noise levels between the same two ends."""
    if sigmas == "spaced":
        return times
    # up to a factor, which changes neither rule
    log_sigma = -path.log_snr(times[[0, -1]].double()) / 2
    first, last = log_sigma.tolist()
    ramp = torch.linspace(0, 1, len(times), dtype=torch.float64)
    if sigmas == "karras":
        high, low = math.exp(first / RHO), math.exp(last / RHO)
        between = RHO * (high + ramp * (low - high)).log()
    else:
        between = first + ramp * (last - first)
    respaced = path.time_of_log_snr(-2 * between).to(times)
    respaced[0] = times[0]
    if len(respaced) > 1:
        respaced[-1] = times[-1]
    return respaced


def check_spacing(
    spacing: str, steps: int, shift: float | str | Sequence[float], toward: str
) -> None:
    """Raise ConfigError for an unknown spacing, or one that excludes the steps or the shift."""
    if spacing not in SPACINGS:
        raise ConfigError(
            f"no spacing {spacing!r}", where="sampler.spacing", cure=f"choose {', '.join(SPACINGS)}"
        )
    if spacing in ENTRIES and (shift != 1 or steps >= TABLE):
        cure = f"sampler.shift=1 and fewer than {TABLE} steps, or sampler.spacing=even"
        raise ConfigError(
            f"spacing={spacing} with shift={shift!r} and {steps} steps", where="sampler", cure=cure
        )
    if spacing == "sd3" and (not isinstance(shift, int | float) or toward != "noise"):
        raise ConfigError(
            "spacing=sd3 needs a number as its shift, toward noise",
            where="sampler",
            cure="shift=3.0",
        )
    if spacing == "table" and toward != "noise":
        raise ConfigError(
            "spacing=table shifts toward noise", where="sampler.toward", cure="sampler.toward=noise"
        )
