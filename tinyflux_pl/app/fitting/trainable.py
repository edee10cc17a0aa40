"""The trainable side of a run: network, weight average, guard and LightningModule."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.fitting.module_kinds import kind_of
from tinyflux_pl.app.fitting.starting_point import StartingPoint
from tinyflux_pl.config.redact import redact_data
from tinyflux_pl.config.schema import Train

if TYPE_CHECKING:
    from tinyflux_pl.training.ema import AveragedWeights
    from tinyflux_pl.training.flow_module import FlowModule
    from tinyflux_pl.training.nonfinite_guard import NonFiniteGuard


@dataclass
class Trainable:
    """A denoiser, or the networks of another kind of module, and what trains and guards it."""

    denoiser: Any
    description: dict[str, Any]  # that checkpoints store
    average: AveragedWeights
    guard: NonFiniteGuard
    module: FlowModule


def build_trainable(parts: Parts[Train], run_dir: Path, start: int, *, compiled: bool) -> Trainable:
    """Initialise the network for the steps from `start` on; the guard reports into `run_dir`."""
    from tinyflux_pl.training.ema import AveragedWeights
    from tinyflux_pl.training.replay_bundle import ReplayBundle

    config, callbacks = parts.config, parts.config.callbacks
    point = StartingPoint(config, parts.method)
    is_needed = start == 0 or parts.method.needs_base  # else a checkpoint replaces the weights
    denoiser = parts.student(point if is_needed else None)
    if config.hardware.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    if compiled:
        denoiser.compile()
    description = {**parts.description(denoiser, parts.image_size), **point.description}
    bundle = ReplayBundle(run_dir, redact_data(config.plain), description)
    kind = kind_of(parts)
    guard = kind.guard(bundle, parts)
    module: Any = kind.module(parts, denoiser, start, guard)
    average = AveragedWeights(**callbacks.ema.plain, excluded=kind.not_averaged)
    return Trainable(denoiser, description, average, guard, module)
