"""Distillation of a trained network to a few steps, with its guidance folded in."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.methods.base_precision import refuse
from tinyflux_pl.methods.method import Method
from tinyflux_pl.objectives.few_step import FewStepObjective
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.sampling.loop import SamplerSettings

STEPS_EQUAL = "each of its few steps counts the same"
NO_PICTURES = "the samples are drawn from noise, not those of the data"


class FewStep(Method):
    """A student with `steps` Euler steps, and a frozen teacher with many guided ones.

    The student starts as the trained network, and the teacher is the network as it was, with the
    run's sampler and guidance. The student has no input or network that the teacher lacks
    (progressive distillation, Salimans and Ho 2022, 2202.00512; of guidance, Meng et al. 2023,
    2210.03142). `on_policy` is the share of samples that go on from where the student arrived
    instead of the teacher (imitation, Ross et al. 2011). Checkpoints hold the whole student.
    """

    name = "few_step"
    needs_base = True
    distills = True
    reads: ClassVar[tuple[str, ...]] = ("sampler", "guidance")
    unread: ClassVar[Mapping[str, str]] = {
        "timesteps": "the student learns at the times that it is drawn at",
        "objective.weighting": STEPS_EQUAL,
        "objective.min_snr_gamma": STEPS_EQUAL,
        "objective.text_dropout": "the student is drawn with its prompt alone, without guidance",
        "objective.foreground": NO_PICTURES,
        "objective.background": NO_PICTURES,
        "objective.map_weighting": NO_PICTURES,
    }
    masks_unread = NO_PICTURES

    def __init__(
        self, steps: int = 4, on_policy: float = 0.5, base_precision: str | None = None
    ) -> None:
        refuse(base_precision, self.name)
        if steps < 1:
            raise ConfigError(f"steps is {steps}", where="method.steps", cure="at least 1")
        if not 0 <= on_policy <= 1:
            raise ConfigError(
                f"on_policy is {on_policy}", where="method.on_policy", cure="from 0 to 1"
            )
        self.steps, self.on_policy = steps, on_policy

    def prepare(self, denoiser: Any) -> None:
        """Keep a frozen copy of the network as the teacher; all of the network trains.

        ConfigError for one that does not predict velocities.
        """
        self.require_velocity(denoiser)
        self.teacher = copy.deepcopy(denoiser).requires_grad_(False).eval()

    def free(self) -> None:
        """Free the teacher."""
        self.teacher = None

    def require_velocity(self, denoiser: Any) -> None:
        """Raise ConfigError for a prediction that has no velocity in pure noise."""
        if denoiser.prediction != "velocity":
            raise ConfigError(
                f"{denoiser.name} predicts {denoiser.prediction}, of which the first of a few "
                "steps, from pure noise, cannot read a direction",
                where=f"method={self.name}",
                cure="a network that predicts velocity: TinyFlux, FLUX, SD3.5",
            )

    def objective(self, objective: FlowObjective, settings: SamplerSettings) -> FlowObjective:
        """Match the teacher over each of the student's steps."""
        assert self.teacher is not None, "prepare comes first"
        student = self.sampling_settings(settings)
        return FewStepObjective(objective, self.teacher, settings, student, self.on_policy)

    def sampling_settings(self, settings: SamplerSettings) -> SamplerSettings:
        """Euler steps on the same kind of grid without guidance; embedded guidance stays."""
        plain = Guidance(scale=1.0, embedded=settings.guidance.embedded)
        return replace(settings, steps=self.steps, solver="euler", guidance=plain)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"steps": self.steps, "on_policy": self.on_policy}
