"""The contract of experts without ports: their teacher's predictions are regression targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from tinyflux_pl.core.protocols import Extractor, Path
from tinyflux_pl.core.specs import ExpertSpec


@runtime_checkable
class TargetExpert(Protocol):
    """A teacher's cached velocities on the student's path, one at each bucket of a sample.

    `name` is the group of the cache. `velocity` selects one bucket a sample (B,) from the batch's
    arrays ("lune_velocity.velocity": (B, K, C, H, W)). `noise` is what the teacher saw there:
    x_t = alpha(t_k) latents + sigma(t_k) noise, and the velocity belongs to that x_t alone.
    """

    name: str
    spec: ExpertSpec

    def velocity(
        self, experts: dict[str, Tensor], buckets: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]: ...
    def noise(
        self, shape: Sequence[int], sample_ids: Sequence[int], buckets: Sequence[int]
    ) -> Float[Tensor, "b c h w"]: ...
    def extractor(self, teacher: Any, student_path: Path, seed: int) -> Extractor: ...
