"""Prior preservation (DreamBooth, Ruiz et al. 2022): the subject's class is trained on as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Denoiser, Expert
from tinyflux_pl.core.transfer import to_device
from tinyflux_pl.core.types import Batch, Prediction, TextEmbeddings
from tinyflux_pl.objectives.flow import Draw, FlowObjective
from tinyflux_pl.objectives.teacher_target import TeacherTargets
from tinyflux_pl.techniques.technique import Technique


class PriorPreservation(FlowObjective):
    """FlowObjective whose samples of the source `class_source` weigh `prior_weight`.

    The loss is the batch's mean, in two terms: `flow` of the subject's samples and `prior` of the
    class's. Where both sources are drawn equally often that is half of instance + weight * prior.
    """

    def __init__(
        self,
        timesteps: Callable[[Tensor, object, int], Tensor],
        null_text: TextEmbeddings,
        experts: Sequence[Expert] = (),
        error: str = "mse",
        huber_delta: float = 0.1,
        weighting: str = "uniform",
        min_snr_gamma: float = 5.0,
        text_dropout: float = 0.1,
        foreground: float = 2.0,
        background: float = 0.5,
        map_weighting: bool = False,
        seed: int = 0,
        prior_weight: float = 1.0,
        class_source: int = 1,
        velocity_targets: TeacherTargets | None = None,
        techniques: Mapping[str, Technique] | None = None,
    ) -> None:
        super().__init__(
            timesteps,
            null_text,
            experts,
            error,
            huber_delta,
            weighting,
            min_snr_gamma,
            text_dropout,
            foreground,
            background,
            map_weighting,
            seed,
            velocity_targets,
            techniques,
        )
        if not 0 <= prior_weight < float("inf"):
            raise ConfigError(
                f"prior_weight is {prior_weight}",
                where="objective.prior_weight",
                cure="a number from 0 on; 1 weighs the class as the subject",
            )
        self.prior_weight, self.class_source = prior_weight, class_source

    def terms(
        self, output: Prediction, per_sample: Tensor, batch: Batch, draw: Draw, step: int
    ) -> dict[str, Tensor]:
        """The terms of FlowObjective, `flow` without the class's samples, and `prior`."""
        terms = super().terms(output, per_sample, batch, draw, step)
        is_class = to_device(batch.dataset_ids == self.class_source, per_sample.device)
        zero = torch.zeros_like(per_sample)
        terms["flow"] = torch.where(is_class, zero, per_sample).mean()
        terms["prior"] = self.prior_weight * torch.where(is_class, per_sample, zero).mean()
        return terms

    @torch.no_grad()
    def by_sample(self, denoiser: Denoiser, batch: Batch, step: int) -> dict[int, dict[str, float]]:
        """Sample id -> weighted terms of that sample; `prior` instead of `flow` of the class."""
        samples = super().by_sample(denoiser, batch, step)
        is_class = batch.dataset_ids == self.class_source
        for sample in batch.sample_ids[is_class.to(batch.sample_ids.device)].tolist():
            samples[sample]["prior"] = self.prior_weight * samples[sample].pop("flow")
        return samples
