"""Teachers' velocities in a step's regression target, and the contract of their selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.types import Batch
from tinyflux_pl.diffusion import prediction


@dataclass(frozen=True)
class TeacherTarget:
    """The teachers' part of one step's target, on the batch's device.

    `t` and `noise` are those that every sample trains at. Where `used` (B,) is True, `velocity`
    (B, C, H, W), on the student's path, enters the target with the weight `weight`.
    """

    used: Bool[Tensor, " b"]
    t: Float[Tensor, " b"]
    noise: Float[Tensor, "b c h w"]
    velocity: Float[Tensor, "b c h w"]
    weight: float

    def mixed(self, target: Tensor, x_t: Tensor, t: Tensor, path: Path, kind: str) -> Tensor:
        """(1 - w) target + w teacher for the samples in `used`, in a prediction of `kind`."""
        teacher = prediction.convert(self.velocity, x_t, t, path, "velocity", kind)
        mixture = (1 - self.weight) * target + self.weight * teacher
        return torch.where(rows_like(self.used, target), mixture, target)


class TeacherTargets(Protocol):
    """Chooses which samples of a step regress on a teacher's velocity.

    `choose` takes the step's times and kept prompts on the host, and its noise on the device.
    `open_times`: the times, if they are fixed, at which a teacher is used. `state` is plain data
    that `restore` continues from.
    """

    def choose(
        self,
        batch: Batch,
        t: Float[Tensor, " b"],
        noise: Float[Tensor, "b c h w"],
        keep_text: Bool[Tensor, " b"],
        step: int,
        path: Path,
    ) -> TeacherTarget: ...
    def weight_at(self, step: int) -> float: ...
    def open_times(self) -> Mapping[float, bool]: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


def require_captions_alone(batch: Batch) -> None:
    """Raise ConfigError for samples with pictures as conditions: teachers read captions alone."""
    if batch.references or batch.inpaint is not None or batch.hint is not None:
        raise ConfigError(
            "teachers of velocities see captions, and these samples have pictures beside them",
            where="pathway",
            cure="pathway=ports, or data without references, inpaint masks and maps",
        )


def ramp(step: int, weight: float, steps: int) -> float:
    """Linear from 0 at step 0 to `weight` at `steps`, constant afterwards."""
    return weight if step >= steps else weight * max(step, 0) / steps


def rows_like(selected: Bool[Tensor, " b"], like: Tensor) -> Bool[Tensor, "b ..."]:
    """A selection of samples shaped to broadcast over the other dimensions of `like` (B, ...)."""
    return selected.reshape(-1, *(1,) * (like.ndim - 1))
