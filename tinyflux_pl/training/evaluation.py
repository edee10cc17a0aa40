"""Prompt accuracy of a trained denoiser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinyflux_pl.core.progress import track
from tinyflux_pl.core.verifier import Verifier
from tinyflux_pl.data.tasks.prompt_accuracy import PromptAccuracy
from tinyflux_pl.sampling.images import ImageSampler


def prompt_accuracy(
    denoiser: nn.Module,
    sampler: ImageSampler,
    verifier: Verifier,
    prompts: Sequence[str],
    *,
    seed: int,
    title: str,
) -> tuple[dict[str, float], Tensor]:
    """Sample one image per prompt on one rank and verify it.

    Returns (accuracy by claim and `all`, images).
    """
    metric = PromptAccuracy(verifier, alone=True)
    sampled: list[Tensor] = []
    done = 0
    batches = sampler.batches(denoiser, prompts, seed=seed)
    for images in track(batches, title, len(prompts), "image", sampler.max_batch):
        metric.update(images, prompts[done : done + len(images)])
        done += len(images)
        sampled.append(images)
    accuracy = {name: float(value) for name, value in metric.compute().items()}
    return accuracy, torch.cat(sampled)
