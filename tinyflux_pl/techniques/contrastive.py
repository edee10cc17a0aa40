"""Contrastive flow matching (Stoica et al. 2025, arXiv 2506.05350)."""

from __future__ import annotations

from collections.abc import Generator

from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Denoiser
from tinyflux_pl.techniques.technique import Regression, StepInputs


class Contrastive:
    """Push each prediction away from the target of another sample of the batch (their eq. 5).

    Adds -weight * |output - target of the neighbour|^2, so that flows of different prompts do not
    average. A batch of one has no neighbour and adds nothing. ConfigError unless 0 <= weight < 1:
    from 1 on the loss has no minimum.
    """

    name = "contrastive"
    reads_blocks = False

    def __init__(self, weight: float = 0.05) -> None:
        if not 0 <= weight < 1:
            raise ConfigError(
                f"weight is {weight}",
                where="technique.contrastive.weight",
                cure="from 0 to below 1; the paper has 0.05",
            )
        self.weight = weight

    def check(self, denoiser: Denoiser) -> None:
        """Every network will do."""

    def applied(self, denoiser: Denoiser, inputs: StepInputs) -> Generator[None]:
        yield

    def loss(self, regression: Regression) -> Tensor | None:
        if len(regression.target) < 2:
            return None
        # data are in random order: the next sample is a random one
        negative = regression.target.roll(-1, 0)
        return -self.weight * regression.mean((regression.output - negative).square())
