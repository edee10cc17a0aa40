"""Parts that solvers share: times, and changes of x0 and noise at a fixed x."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tinyflux_pl.core.protocols import Path
from tinyflux_pl.diffusion.paths import expand_like

Field = Callable[[Tensor, Tensor], Tensor]
# noise like x for the step of that index, for ancestral solvers
FreshNoise = Callable[[int], Tensor]
OnStep = Callable[[int, Tensor], None]  # called after each step with its index and the new state
Past = tuple[Tensor, Tensor]  # x0 one step ago, and that step's length


def times_of(grid: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Times (steps + 1, B), the same for every sample: on the grid's device, and on that of x."""
    rows = x.shape[0]
    return grid[:, None].expand(-1, rows), grid.to(x.device)[:, None].expand(-1, rows)


def second_order_steps(grid: Tensor, path: Path) -> int:
    """Number of steps that end in some noise: all, or all but the last."""
    return len(grid) - 1 - int(float(path.sigma(grid[-1:])[0]) == 0)


def change_data(
    x0: Tensor, noise: Tensor, change: Tensor, t: Tensor, path: Path
) -> tuple[Tensor, Tensor]:
    """(x0 + change, noise) with the noise that still gives the same x at t."""
    ratio = expand_like(path.alpha(t) / path.sigma(t), x0)
    return x0 + change, noise - ratio * change


def predicted_change(x0: Tensor, past: Past | None, length: Tensor) -> Tensor:
    """Second-order addition to x0: the line through it and the x0 before; none at first.

    DPM-Solver++ 2M (2211.01095), algorithm 2; the predictor of UniPC-2. `length` is that of the
    step in half log-SNR.
    """
    if past is None:
        return torch.zeros_like(x0)
    x0_before, length_before = past
    return (x0 - x0_before) * length / (2 * length_before)
