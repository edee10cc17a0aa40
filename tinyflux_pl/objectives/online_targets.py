"""A teacher in the training step: its velocity at the step's own time and noise, nothing cached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

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
    the run's that it teaches on, from 0; None: all. Of objectives.TeacherTargets.
    """

    def __init__(
        self,
        teacher: Denoiser,
        probability: float = 1.0,
        weight: float = 1.0,
        ramp_steps: int = 0,
        seed: int = 0,
        sources: Sequence[int] | None = None,
    ) -> None:
        self.teacher = teacher
        self.probability, self.weight, self.ramp_steps = probability, weight, ramp_steps
        self.seed = seed
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
        """The teacher's velocities; it sees every sample, so that shapes do not vary."""
        require_captions_alone(batch)
        ids, device = batch.sample_ids.tolist(), batch.latents.device
        chance = rng.uniform(self.seed, "teacher_target", ids, step)
        used = to_device((chance < self.probability) & keep_text, device)
        if self.sources is not None:
            taught = torch.isin(batch.dataset_ids, self.sources.to(batch.dataset_ids.device))
            used = used & to_device(taught, device)
        t = to_device(t, device)
        with torch.no_grad():
            predicted = velocity(
                self._on(device), batch.latents, noise, t, path, Conditioning(batch.text)
            )
        return TeacherTarget(used, t, noise, predicted, self.weight_at(step))

    def open_times(self) -> dict[float, bool]:
        """None: it teaches at any time."""
        return {}

    def state(self) -> dict[str, Any]:
        """Nothing is measured."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to continue from."""

    def _on(self, device: torch.device) -> Denoiser:
        """The teacher on the device of the batch, where it stays; not part of the module."""
        network: nn.Module = self.teacher  # ty: ignore[invalid-assignment]
        if next(network.parameters()).device != device:
            network.to(device)
        return self.teacher
