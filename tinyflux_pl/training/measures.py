"""Measurements at log points, besides the means of the steps; tensors are read together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from tinyflux_pl.core import metric_names as names
from tinyflux_pl.training.data_wait import DataWait
from tinyflux_pl.training.ema import AveragedWeights
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.throughput import peak_memory_bytes


@dataclass(frozen=True)
class Window:
    """The steps since the last log point."""

    steps: int
    images_per_second: float


Measure = Callable[[FlowModule, Window], Mapping[str, float | Tensor]]


def expert_schedule(module: FlowModule, window: Window) -> dict[str, float]:
    """Weight and dropout of each expert in the last step."""
    step = module.step - 1
    values = {}
    for expert in module.objective.experts:
        values[names.WEIGHT.of(expert=expert.name)] = expert.weight_at(step)
        values[names.DROPOUT.of(expert=expert.name)] = expert.dropout_at(step)
    return values


def velocity_targets(module: FlowModule, window: Window) -> dict[str, float]:
    """Weight of the teachers' velocities in the last step, and the times at which they are used."""
    targets = module.objective.velocity_targets
    if targets is None:
        return {}
    values = {
        names.VELOCITY_OPEN.of(time=f"{time:g}"): float(is_open)
        for time, is_open in targets.open_times().items()
    }
    return {names.VELOCITY_WEIGHT.pattern: targets.weight_at(module.step - 1), **values}


def gates(module: FlowModule, window: Window) -> dict[str, Tensor]:
    """The learned gate of each port that has one."""
    return {names.GATE.of(port=port): gate for port, gate in module.denoiser.port_gates().items()}


def peak_memory(module: FlowModule, window: Window) -> dict[str, float]:
    """Peak memory of this process in bytes."""
    return {names.MEMORY.pattern: float(peak_memory_bytes())}


def ema_distance(average: AveragedWeights) -> Measure:
    """Distance of the averages from the raw weights, relative to the norm of the raw weights."""

    def measure(module: FlowModule, window: Window) -> dict[str, Tensor]:
        return {names.EMA_DISTANCE.pattern: average.distance(module.network)}

    return measure


def waiting(data_wait: DataWait) -> Measure:
    """Seconds per step spent waiting for batches, mean of the window."""
    before = 0.0

    def measure(module: FlowModule, window: Window) -> dict[str, float]:
        nonlocal before
        seconds, before = data_wait.seconds - before, data_wait.seconds
        return {names.DATA_WAIT.pattern: seconds / window.steps}

    return measure


class Utilisation:
    """MFU (PaLM, 2204.02311, appendix B): FLOPs of the model per second over the peak of the ranks.

    `flops_per_image()` counts forward and backward pass, once, at the first log point; `peak` is
    that of one rank, per second.
    """

    def __init__(self, peak: float, flops_per_image: Callable[[], float]) -> None:
        self.peak = peak
        self.flops_per_image = cache(flops_per_image)

    def __call__(self, module: FlowModule, window: Window) -> dict[str, float]:
        """The mean utilisation of the window."""
        flops_per_second = self.flops_per_image() * window.images_per_second
        return {names.MFU.pattern: flops_per_second / (self.peak * module.trainer.world_size)}


@torch.no_grad()
def module_gradient_norms(network: nn.Module) -> dict[str, Tensor]:
    """Top-level module -> L2 norm of its gradient; below a wrapper that holds all parameters."""
    gradients = {k: p.grad for k, p in network.named_parameters() if p.grad is not None}
    roots = {name.partition(".")[0] for name in gradients}
    depth = 1 if len(roots) == 1 else 0
    by_module: dict[str, list[Tensor]] = {}
    for name, gradient in gradients.items():
        parts = name.split(".")
        by_module.setdefault(parts[min(depth, len(parts) - 1)], []).append(gradient)
    return {module: nn.utils.get_total_norm(group) for module, group in by_module.items()}
