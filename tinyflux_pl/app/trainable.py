"""What learns in a run, without its data: network, averages, guard and module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.app.components import Parts
from tinyflux_pl.config.build import build
from tinyflux_pl.config.redact import redact_data


@dataclass
class Learner:
    """The denoiser with its AveragedWeights, its NonFiniteGuard and the FlowModule that trains it."""

    denoiser: Any
    average: Any
    guard: Any
    module: Any

    @classmethod
    def of(cls, parts: Parts, run_dir: Path, start: int, *, compiled: bool) -> Learner:
        """Newly initialised, for the steps from `start` on; the guard writes what it finds into `run_dir`."""
        from tinyflux_pl.training.ema import AveragedWeights
        from tinyflux_pl.training.flow_module import FlowModule
        from tinyflux_pl.training.nonfinite_guard import NonFiniteGuard
        from tinyflux_pl.training.replay_bundle import ReplayBundle

        config, callbacks = parts.config, parts.config["callbacks"]
        denoiser = parts.student()
        if config["hardware"]["gradient_checkpointing"]:
            denoiser.enable_gradient_checkpointing()
        if compiled:
            denoiser.compile()
        objective = build(
            config["objective"],
            timesteps=build(config["timesteps"]),
            null_text=parts.text.null(),
            experts=list(parts.experts.values()),
        )
        bundle = ReplayBundle(run_dir, redact_data(config), parts.description(denoiser, parts.image_size))
        guard = NonFiniteGuard(bundle, callbacks["log_every_steps"], **callbacks["guard"])
        schedule, optimizer = build(config["schedule"]), build(config["optimizer"])
        module = FlowModule(denoiser, objective, optimizer, schedule, start, callbacks["clip"], guard)
        return cls(denoiser, AveragedWeights(**callbacks["ema"]), guard, module)
