"""Teachers' cached velocities as regression targets, used while they beat the student.

With probability p a sample is moved to its nearest bucket t_k and to the noise that its teacher saw
there, and regresses (1 - w) v_data + w v_teacher. A teacher that knows the data's distribution
predicts its mean, where v_data is one draw: the same minimum with less variance in the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.target_expert import TargetExpert
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Batch
from tinyflux_pl.diffusion.paths import progress_toward
from tinyflux_pl.objectives.teacher_target import (
    TeacherTarget,
    ramp,
    require_captions_alone,
    rows_like,
)

WHERE = "pathway.velocity"


class VelocityTargets:
    """Settings of `pathway.velocity`, the experts, and the measured errors of both sides.

    `errors` (T, K): the mean squared error of each teacher at each bucket on validation data, 0
    until measured. `student` (K,): that of the student's averaged weights at the last validation,
    None before the first. With `gate` a bucket is open only while its best teacher's error is the
    smaller one; before the first validation all are.
    """

    def __init__(
        self,
        experts: Sequence[TargetExpert],
        probability: float = 0.9,
        weight: float = 1.0,
        ramp_steps: int = 200,
        gate: bool = True,
        seed: int = 0,
    ) -> None:
        if not experts:
            raise ConfigError("no teacher has velocities", where=WHERE, cure="experts=NAME")
        self.experts = tuple(experts)
        self.buckets = self.experts[0].spec.t_buckets
        self.probability, self.weight, self.ramp_steps = probability, weight, ramp_steps
        self.gate, self.seed = gate, seed
        self.errors = torch.zeros(len(self.experts), len(self.buckets))
        self.student: Tensor | None = None

    def weight_at(self, step: int) -> float:
        """w at an optimizer step: linear from 0 to `weight` over `ramp_steps`."""
        return ramp(step, self.weight, self.ramp_steps)

    def open_buckets(self) -> Bool[Tensor, "teachers k"]:
        """True where each teacher is better than the student, as far as measured."""
        if not self.gate or self.student is None:
            return torch.ones_like(self.errors, dtype=torch.bool)
        return self.errors < self.student

    def open_times(self) -> dict[float, bool]:
        """Time of each bucket -> True if any teacher is used there."""
        return dict(zip(self.buckets, self.open_buckets().any(0).tolist(), strict=True))

    def observe(self, times: Sequence[float], errors: Sequence[float], path: Path) -> None:
        """Set the student's errors at `times`, given as progress from noise to data.

        Linear between them, constant beyond. Errors that are not finite are ignored.
        """
        measured = sorted(zip(times, errors, strict=True))
        knots = torch.tensor([time for time, _ in measured], dtype=torch.float64)
        values = torch.tensor([error for _, error in measured], dtype=torch.float64)
        if not bool(values.isfinite().all()):
            return
        share = progress_toward(path, torch.tensor(self.buckets, dtype=torch.float64), "data")
        share = share.clamp(knots[0], knots[-1])
        right = torch.searchsorted(knots, share).clamp(min=1, max=max(1, len(knots) - 1))
        if len(knots) == 1:
            self.student = values.expand(len(share)).float()
            return
        part = (share - knots[right - 1]) / (knots[right] - knots[right - 1])
        self.student = ((1 - part) * values[right - 1] + part * values[right]).float()

    def choose(
        self,
        batch: Batch,
        t: Float[Tensor, " b"],
        noise: Float[Tensor, "b c h w"],
        keep_text: Bool[Tensor, " b"],
        step: int,
        path: Path,
    ) -> TeacherTarget:
        """The step's targets for times t and kept prompts, both still on the host.

        A sample that is chosen gets a time and a noise of the cache in place of its own. Nothing is
        read from the device: there only the presence of each teacher is known.
        """
        require_captions_alone(batch)
        ids = batch.sample_ids.tolist()
        device, shape = batch.latents.device, batch.latents.shape[1:]
        knots = torch.tensor(self.buckets)
        bucket = (t.cpu()[:, None] - knots).abs().argmin(1)
        chance = rng.uniform(self.seed, "teacher_target", ids, step)
        is_open = self.open_buckets()[:, bucket]
        selected = (chance < self.probability) & keep_text & is_open.any(0)
        rows = selected.nonzero().flatten().tolist()
        cached_noise = torch.zeros(len(ids), *shape)
        cached_noise[rows] = self.experts[0].noise(
            shape, [ids[row] for row in rows], bucket[rows].tolist()
        )
        on_device = to_device(bucket, device)
        best, present = self._best(batch, bucket)
        is_open_there = to_device(is_open, device).gather(0, best[None])[0]
        used = to_device(selected, device) & present & is_open_there
        return TeacherTarget(
            used=used,
            t=torch.where(used, to_device(knots[bucket], device), to_device(t, device)),
            noise=torch.where(rows_like(used, noise), to_device(cached_noise, device), noise),
            velocity=self._velocity(batch, on_device, best),
            weight=self.weight_at(step),
        )

    def _best(
        self, batch: Batch, bucket: Int[Tensor, " b"]
    ) -> tuple[Int[Tensor, " b"], Bool[Tensor, " b"]]:
        """The teacher of the least measured error that each sample has; True where it has any."""
        present = torch.stack([batch.expert_present[expert.name] for expert in self.experts])
        errors = to_device(self.errors[:, bucket], present.device)
        return errors.where(present, torch.inf).argmin(0), present.any(0)

    def _velocity(
        self, batch: Batch, bucket: Int[Tensor, " b"], best: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        velocity = self.experts[0].velocity(batch.experts, bucket)
        for index, expert in enumerate(self.experts[1:], 1):
            other = expert.velocity(batch.experts, bucket)
            velocity = torch.where(rows_like(best == index, other), other, velocity)
        return velocity

    def state(self) -> dict[str, Any]:
        """The measured errors, as plain data."""
        student = None if self.student is None else self.student.tolist()
        return {"errors": self.errors.tolist(), "student": student}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.errors = torch.tensor(state["errors"]).reshape(self.errors.shape)
        student = state["student"]
        self.student = None if student is None else torch.tensor(student)
