"""A batch of zeros with every tensor that a run's batches may have, to count memory with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.app.components import Parts
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import Batch, TextEmbeddings


def planned_text(spec: TextSpec, rows: int) -> TextEmbeddings:
    """Captions of full length."""
    mask = torch.ones(rows, spec.length, dtype=torch.bool)
    tokens = torch.zeros(rows, spec.length, spec.width)
    return TextEmbeddings(tokens, mask, torch.zeros(rows, spec.pooled))


def planned_batch(parts: Parts, denoiser: Any, rows: int) -> Batch:
    """Zeros with captions of full length and every condition that the data may have."""
    spec, (height, width) = parts.codec.latent_spec, parts.image_size
    sides = (height // spec.downsample, width // spec.downsample)
    latents = torch.zeros(rows, spec.channels, *sides)
    experts: dict[str, Tensor] = {}
    present: dict[str, Tensor] = {}
    for name, expert in parts.cached.items():
        for key, shape in expert.spec.shapes_for(tuple(latents.shape[1:])).items():
            times = len(expert.spec.t_buckets)
            experts[f"{name}.{key}"] = torch.ones(rows, times, *shape)
        present[name] = torch.ones(rows, dtype=torch.bool)
    conditions: dict[str, Any] = {"size_ids": torch.zeros(rows, 6)}
    channels = denoiser.inpaint_channels
    if channels:
        conditions["inpaint"] = torch.zeros(rows, channels, *sides)
    elif "reference_size" in parts.config.data.plain and denoiser.reads_references:
        conditions["references"] = (torch.zeros_like(latents),)
    if shape := denoiser.hint_shape(*sides):
        conditions["hint"] = torch.zeros(rows, *shape)
    if ids := parts.text.text_spec.ids:
        cells = sides[0] * sides[1]
        conditions["target_ids"] = torch.zeros(rows, cells, ids)
        conditions["target_mask"] = torch.ones(rows, cells, dtype=torch.bool)
    text, index = planned_text(parts.text.text_spec, rows), torch.arange(rows)
    return Batch(latents, text, index, index, [""] * rows, experts, present, **conditions)
