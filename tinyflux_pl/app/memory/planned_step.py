"""One evaluation of a denoiser on the meta device, as a memory plan counts it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyflux_pl.config.schema import Generate


def step(denoiser: Any, text_spec: Any, latents: Any, config: Generate) -> Any:
    """One evaluation of the denoiser: both rows of a guided image, references and mask included."""
    import torch

    from tinyflux_pl.core.types import Conditioning, TextEmbeddings

    rows = len(latents) * (2 if is_guided(config) else 1)
    x = latents.new_empty(rows, *latents.shape[1:])
    shape = (rows, text_spec.length)
    text = TextEmbeddings(
        x.new_empty(*shape, text_spec.width),
        x.new_empty(shape, dtype=torch.bool),
        x.new_empty(rows, text_spec.pooled),
    )
    references = tuple(_reference(denoiser, x, file) for file in config.references)
    channels = denoiser.inpaint_channels
    inpaint = x.new_empty(rows, channels, *x.shape[2:]) if channels else None
    hint_shape = denoiser.hint_shape(*x.shape[2:])
    hint = x.new_empty(rows, *hint_shape) if hint_shape else None
    cond = Conditioning(text, references=references, inpaint=inpaint, hint=hint)
    if text_spec.ids:
        tokens = x.shape[2] * x.shape[3]
        ids = x.new_empty(rows, tokens, text_spec.ids)
        mask = x.new_empty(rows, tokens, dtype=torch.bool)
        cond = replace(cond, target_ids=ids, target_mask=mask)
    return denoiser(x, x.new_empty(rows), cond)


def is_guided(config: Generate) -> bool:
    """True if a step also evaluates the unconditional."""
    from tinyflux_pl.diffusion.guidance import Guidance

    chosen = {key: value for key, value in config.guidance.items() if value is not None}
    return replace(Guidance(), **chosen).scale != 1


def _reference(denoiser: Any, x: Any, file: str) -> Any:
    """Empty latents of a reference at the size it is resized to; of a missing file, x's size."""
    from tinyflux_pl.data.images.decode import inspect
    from tinyflux_pl.data.images.resize_rules import AREA

    downsample, path = denoiser.latent_spec.downsample, Path(file).expanduser()
    if denoiser.reference_size in ("preferred", "area"):  # the largest that these rules give
        side = math.isqrt(AREA) // downsample
        return x.new_empty(*x.shape[:2], side, side)
    if not path.is_file():
        return x
    cell, patch = downsample * denoiser.patch_size, denoiser.patch_size
    width, height = (max(side // cell, 1) * patch for side in inspect(path))
    return x.new_empty(*x.shape[:2], height, width)
