"""Lune: features of a flow teacher's middle block at t, for the student's conditioning vector."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.experts.bucket_interpolation import T_BUCKETS
from tinyflux_pl.experts.expert import CachedExpert, per_sample
from tinyflux_pl.experts.lune_features import LuneFeatures
from tinyflux_pl.experts.teacher import Teacher

HUBER_DELTA = 0.1
SOFT_TEMPERATURE = 10.0
LOSSES = ("cosine", "huber", "soft", "hard")


class Lune(CachedExpert):
    """Feeds the port `vec` with the teacher's raw features (B, width).

    loss: cosine, 1 - cos; huber (delta 0.1); soft, the squared error of features / 10; hard, the
    squared error. clock="literal" caches as the original did (experts.literal).
    """

    name = "lune"
    columns = {"features": "vec"}  # noqa: RUF012  (a constant)

    def __init__(
        self,
        width: int = 1280,
        weight: float = 0.1,
        ramp_steps: int = 1000,
        dropout: float = 0.1,
        dropout_end: float | None = None,
        dropout_steps: int = 0,
        loss: str = "cosine",
        t_buckets: Sequence[float] = T_BUCKETS,
        clock: str = "matched",
    ) -> None:
        if loss not in LOSSES:
            choices = ", ".join(LOSSES)
            raise ConfigError(
                f"no loss {loss!r}", where="experts.lune.loss", cure=f"choose one of {choices}"
            )
        shapes: dict[str, tuple[int, ...]] = {"features": (width,)}
        super().__init__(
            shapes, weight, ramp_steps, dropout, dropout_end, dropout_steps, t_buckets, clock
        )
        self.width = width
        self.kind = loss

    def loss(self, heads: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
        """Loss (B,) of heads["vec"] against targets["vec"]."""
        predicted = heads["vec"].float()
        target = targets["vec"].float()
        if self.kind == "cosine":
            return 1 - F.cosine_similarity(predicted, target, dim=-1)
        if self.kind == "huber":
            return per_sample(F.huber_loss(predicted, target, reduction="none", delta=HUBER_DELTA))
        scale = SOFT_TEMPERATURE if self.kind == "soft" else 1.0
        return per_sample(torch.square((predicted - target) / scale))

    def port_options(self) -> dict[str, Any]:
        """The option that opens the published network's own port for Lune."""
        return {"lune_dim": self.width}

    def extractor(self, teacher: Teacher, student_path: Path, seed: int) -> LuneFeatures:
        """The extractor of Lune's features."""
        return LuneFeatures(teacher, student_path, self.spec.t_buckets, seed, clock=self.clock)

    def config(self) -> dict[str, Any]:
        """Plain data that rebuilds this expert."""
        return {**super().config(), "width": self.width, "loss": self.kind}
