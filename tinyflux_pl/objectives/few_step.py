"""Distillation of a guided teacher's trajectory into a student with few steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Denoiser, Path
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Batch, Conditioning
from tinyflux_pl.diffusion import losses
from tinyflux_pl.diffusion.prediction import to_data_and_noise
from tinyflux_pl.diffusion.solvers import solver_named
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.sampling.field import Field
from tinyflux_pl.sampling.loop import SamplerSettings, step_times
from tinyflux_pl.sampling.noise import initial_noise

CELLS = 1024  # of the latents at which the times are checked before there is a batch


class FewStepObjective(FlowObjective):
    """Match each single step of the student to the teacher's many guided steps over the same times.

    Trajectories start from noise with the batch's captions: from one of the student's times to the
    next, the teacher takes its guided steps and the student one step without guidance. The error is
    that of the student's mean velocity over the step. A share `on_policy` of the samples continues
    from the student's state, the others from the teacher's. The batch's pictures are read as
    references and inpaint masks alone. `as_teacher` is a context in which `teacher` predicts as the
    teacher: outside of it, it may be the student's own network. ConfigError for a teacher with a
    stochastic solver, or whose times do not end in clean data.
    """

    def __init__(
        self,
        run: FlowObjective,
        teacher: Any,
        guided: SamplerSettings,
        student: SamplerSettings,
        on_policy: float,
        as_teacher: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        _require_plain(run)
        vars(self).update(vars(run))  # null text, error, seed; the distribution of times is unused
        self.teacher, self.guided, self.student = teacher, guided, student
        self.on_policy, self.as_teacher = on_policy, as_teacher
        if guided.solver == "euler_ancestral" or guided.guidance.zero_until:
            raise ConfigError(
                "the teacher's sampler is stochastic, or does not move at first",
                where="sampler",
                cure="sampler.solver=euler guidance.zero_until=0",
            )
        self.times(teacher, CELLS)  # raises for times that do not end in clean data

    def loss(self, denoiser: Denoiser, batch: Batch, step: int) -> dict[str, Tensor]:
        """The mean error of the student's steps, in units of velocity."""
        device, path = batch.latents.device, denoiser.path
        ids, shape = batch.sample_ids.tolist(), batch.latents.shape[1:]
        stream = f"few_step/{step}"
        x = to_device(initial_noise(shape, batch.target_mask, self.seed, stream, ids), device)
        cond, uncond = self._conditions(batch)
        times = self.times(denoiser, shape[1] * shape[2])
        errors = []
        for k, (start, end) in enumerate(itertools.pairwise(times)):
            target = self._teacher_endpoint(
                x, cond, uncond, torch.linspace(start, end, self.substeps + 1)
            )
            t = start.expand(len(x))
            arrived = _euler_step(Field(denoiser, cond)(x, t), x, start, end, path)
            reach = _euler_step(torch.ones_like(x[:1]), torch.zeros_like(x[:1]), start, end, path)
            error = losses.elementwise(
                self.error, arrived / reach, target / reach, self.huber_delta
            )
            errors.append(losses.unpadded_mean(error, batch.target_mask).mean())
            follows = rng.uniform(self.seed, f"few_step/follows/{k}", ids, step) < self.on_policy
            follows = to_device(follows, device)[:, None, None, None]
            x = torch.where(follows, arrived.detach(), target)
        return {"few_step": torch.stack(errors).mean()}

    @property
    def substeps(self) -> int:
        """Steps of the teacher for one of the student."""
        return math.ceil(self.guided.steps / self.student.steps)

    def times(self, denoiser: Denoiser, cells: int) -> Tensor:
        """The student's times (steps + 1,), at which it is also sampled.

        ConfigError unless the last is that of clean data.
        """
        chosen, path = self.student, denoiser.path
        times = step_times(chosen, path, cells // denoiser.patch_size**2)
        if float(path.sigma(times[-1:])[0]) > 0 or chosen.start != "unit":
            raise ConfigError(
                "these times do not lead from noise to clean data",
                where="sampler.spacing",
                cure="sampler.spacing=even sampler.start=unit",
            )
        return times

    def _conditions(self, batch: Batch) -> tuple[Conditioning, Conditioning]:
        """Conditioning with the captions, and with the null text; both with embedded guidance."""
        device = batch.latents.device
        if self._null.tokens.device != device:
            self._null = self._null.to(device)
        texts = (batch.text, self._null.expand(len(batch)))
        embedded = self.guided.guidance.embedded
        value = None if embedded is None else batch.latents.new_full((len(batch),), embedded)
        cond, uncond = (
            replace(batch.conditioning(text), embedded_guidance=value) for text in texts
        )
        return cond, uncond

    @torch.no_grad()
    def _teacher_endpoint(
        self, x: Tensor, cond: Conditioning, uncond: Conditioning, times: Tensor
    ) -> Tensor:
        """The teacher's state after guided steps from x over these times."""
        if next(self.teacher.parameters()).device != x.device:
            self.teacher.to(x.device)
        guidance, path = self.guided.guidance, self.teacher.path
        with self.as_teacher():
            field = Field(self.teacher, cond, uncond, guidance, times)
            return solver_named(self.guided.solver)(field, x, times, path)


def _require_plain(run: FlowObjective) -> None:
    """Raise ConfigError for an objective with terms or weights that distillation does not use."""
    if run.experts or run.velocity_targets is not None:
        raise ConfigError(
            "the targets are the teacher's steps, not what experts cached",
            where="experts",
            cure="experts=none; the heads of a teacher that experts taught stay in its network",
        )
    if run.techniques:
        raise ConfigError(
            "imitation of a teacher's steps has no technique of regression",
            where="technique",
            cure="technique=none",
        )
    if type(run) is not FlowObjective:
        raise ConfigError(
            f"the terms of {type(run).__name__} cannot be distilled",
            where="objective",
            cure="objective=flow",
        )
    if run.weighting.kind != "uniform" or run.map_weighting:
        raise ConfigError(
            "few-step distillation weights all steps and cells equally",
            where="objective",
            cure="objective.weighting=uniform objective.map_weighting=false",
        )


def _euler_step(velocity: Tensor, x: Tensor, start: Tensor, end: Tensor, path: Path) -> Tensor:
    """x after one Euler step (diffusion.solvers) with a velocity, from one time to another."""
    at, to = (time.to(x.device).expand(len(x)) for time in (start, end))
    return path.interpolate(*to_data_and_noise("velocity", velocity, x, at, path), to)
