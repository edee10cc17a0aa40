"""Distillation to a few steps into an adapter, whose teacher is its own base.

As LCM-LoRA (Luo et al. 2023, 2311.05556) and its kin: megabytes that make a release draw in a few
steps.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from tinyflux_pl.methods import peft_layers
from tinyflux_pl.methods.few_step import FewStep
from tinyflux_pl.methods.layer_plan import Target
from tinyflux_pl.methods.lora import LoRA
from tinyflux_pl.objectives.few_step import FewStepObjective
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.sampling.loop import SamplerSettings


class FewStepLoRA(FewStep):
    """The student of methods.few_step.FewStep as an adapter, with the options of methods.lora.LoRA.

    The teacher is the network with the adapter switched off, so that the base is in memory once.
    Checkpoints hold the adapter and refer to the base.
    """

    name = "few_step_lora"
    adds_to_base = True
    exports_adapter = True

    def __init__(
        self,
        steps: int = 4,
        on_policy: float = 0.5,
        rank: int | None = None,
        alpha: float | None = None,
        targets: Sequence[Target] | None = None,
        preset: str | None = None,
        dropout: float = 0.0,
        rslora: bool = False,
        dora: bool = False,
        lokr: bool = False,
        init: Literal["kaiming", "gaussian"] = "kaiming",
        base_precision: str | None = None,
    ) -> None:
        super().__init__(steps, on_policy)
        self.lora = LoRA(
            rank=rank,
            alpha=alpha,
            targets=targets,
            preset=preset,
            dropout=dropout,
            rslora=rslora,
            dora=dora,
            lokr=lokr,
            init=init,
            base_precision=base_precision,
        )
        self.base_precision = self.lora.base_precision
        self.reads_weights = self.lora.reads_weights

    def prepare(self, denoiser: Any) -> None:
        """Freeze every parameter and attach adapters, which train.

        ConfigError for a network that does not predict velocities.
        """
        self.require_velocity(denoiser)
        self.lora.prepare(denoiser)
        # weak: the network of a dry run is freed before that of the run is built
        self._network = weakref.ref(denoiser)

    def objective(self, objective: FlowObjective, settings: SamplerSettings) -> FlowObjective:
        """Match the base over each of the student's steps."""
        network = self._network()
        assert network is not None, "prepare comes first"
        return FewStepObjective(
            objective,
            network,
            settings,
            self.sampling_settings(settings),
            self.on_policy,
            functools.partial(peft_layers.switched_off, network),
        )

    def saved(self, denoiser: nn.Module) -> frozenset[str]:
        """The adapters alone."""
        return self.lora.saved(denoiser)

    def rates(self, denoiser: nn.Module) -> Mapping[str, float]:
        """The factors of targets with an lr_scale."""
        return self.lora.rates(denoiser)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, without base_precision."""
        return {**super().config(), **self.lora.config()}
