"""A teacher in the training step: its velocity at the step's own time and noise, uncached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tinyflux_pl.core import rng
from tinyflux_pl.core.protocols import Denoiser, Path
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Batch, Conditioning
from tinyflux_pl.objectives.teacher_target import TeacherTarget, ramp, require_captions_alone
from tinyflux_pl.objectives.teacher_velocity import velocity


class OnlineTargets:
    """Targets from a frozen denoiser of the student's latents and text (Hinton et al. 2015).

    With `probability` a sample whose prompt is kept regresses (1 - w) v_data + w v_teacher, at its
    own t and noise; w rises from 0 to `weight` over `ramp_steps`. `sources` are the places among
    the run's that it teaches on, from 0; None: all. `teacher_on` is a context with the teacher on a
    device. It predicts for the samples that it teaches; with `fixed_shapes`, and on the meta
    device, whose sizes are the largest, for all. Of objectives.TeacherTargets.
    """

    def __init__(
        self,
        teacher_on: Callable[[torch.device], AbstractContextManager[Denoiser]],
        probability: float = 1.0,
        weight: float = 1.0,
        ramp_steps: int = 0,
        seed: int = 0,
        sources: Sequence[int] | None = None,
        fixed_shapes: bool = False,
    ) -> None:
        self.teacher_on = teacher_on
        self.probability, self.weight, self.ramp_steps = probability, weight, ramp_steps
        self.seed, self.fixed_shapes = seed, fixed_shapes
        self.sources = None if sources is None else torch.tensor(sources)

    def weight_at(self, step: int) -> float:
        """w at an optimizer step."""
        return ramp(step, self.weight, self.ramp_steps)

    def choose(
        self,
        batch: Batch,
        t: Float[Tensor, " b"],
        noise: Float[Tensor, "b c h w"],
        keep_text: Bool[Tensor, " b"],
        step: int,
        path: Path,
    ) -> TeacherTarget:
        """The teacher's velocities; zeros for samples without a teacher."""
        require_captions_alone(batch)
        device = batch.latents.device
        chance = rng.uniform(self.seed, "teacher_target", batch.sample_ids.tolist(), step)
        used = (chance < self.probability) & keep_text  # on the host, as are all ids
        if self.sources is not None:
            used = used & torch.isin(batch.dataset_ids, self.sources)
        t = to_device(t, device)
        predicted = self._velocities(batch, t, noise, used, path)
        return TeacherTarget(to_device(used, device), t, noise, predicted, self.weight_at(step))

    @torch.no_grad()
    def _velocities(
        self,
        batch: Batch,
        t: Float[Tensor, " b"],
        noise: Float[Tensor, "b c h w"],
        used: Bool[Tensor, " b"],
        path: Path,
    ) -> Float[Tensor, "b c h w"]:
        device, latents, text = batch.latents.device, batch.latents, batch.text
        every = self.fixed_shapes or device.type == "meta" or bool(used.all())
        velocities = torch.zeros_like(latents, dtype=torch.float32)
        if not every and not used.any():
            return velocities
        rows = None if every else to_device(used.nonzero().flatten(), device)
        if rows is not None:
            latents, noise, t, text = latents[rows], noise[rows], t[rows], text.select(rows)
        with self.teacher_on(device) as teacher:
            predicted = velocity(teacher, latents, noise, t, path, Conditioning(text))
        return predicted if rows is None else velocities.index_copy(0, rows, predicted)

    def open_times(self) -> dict[float, bool]:
        """None: targets at any time."""
        return {}

    def state(self) -> dict[str, Any]:
        """Empty: nothing is measured."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """No state to restore."""
