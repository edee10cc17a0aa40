"""Prompt accuracy of a trained denoiser, on combinations it has seen and on those held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core.progress import track
from tinyflux_pl.data.prompt_accuracy import PromptAccuracy
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
    metric, drawn, size = PromptAccuracy(verifier, alone=True), [], sampler.max_batch
    starts = range(0, len(prompts), size)
    for start in track(starts, title, len(prompts), "image", size):
        rows = list(range(start, min(start + size, len(prompts))))
        images = sampler.images(denoiser, [prompts[i] for i in rows], indices=rows, seed=seed)
        metric.update(images, [prompts[i] for i in rows])
        drawn.append(images)
    return {name: float(value) for name, value in metric.compute().items()}, torch.cat(drawn)
