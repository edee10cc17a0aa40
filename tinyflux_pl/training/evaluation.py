"""Prompt accuracy of a trained denoiser, on combinations it has seen and on those held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core.progress import track
from tinyflux_pl.data.tasks.prompt_accuracy import PromptAccuracy
from tinyflux_pl.sampling.images import ImageSampler


def prompt_accuracy(
    denoiser: nn.Module,
    sampler: ImageSampler,
    verifier: Any,
    prompts: Sequence[str],
    *,
    seed: int,
    title: str,
) -> tuple[dict[str, float], Tensor]:
    """Draw one image a prompt and read it back, on one rank: (accuracy by claim and `all`, the images)."""
    metric, drawn, done = PromptAccuracy(verifier, alone=True), [], 0
    batches = sampler.batches(denoiser, prompts, seed=seed)
    for images in track(batches, title, len(prompts), "image", sampler.max_batch):
        metric.update(images, prompts[done : done + len(images)])
        done += len(images)
        drawn.append(images)
    return {name: float(value) for name, value in metric.compute().items()}, torch.cat(drawn)
