"""A pipeline conditioned on pictures: references, a masked picture, or an initial picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.inference import seen_references
from tinyflux_pl.inference.edit import Edit, Inpainting, References
from tinyflux_pl.inference.pipeline import Pipeline
from tinyflux_pl.inference.start import Start


def editing(
    pipeline: Pipeline,
    references: Sequence[str | Path] = (),
    image: str | Path | None = None,
    mask: str | Path | None = None,
    keep_size: bool = False,
    strength: float | None = None,
) -> Pipeline:
    """Image inputs of sampling: references (Kontext), inpainting (Fill), or an initial image.

    An initial image works with any network, with or without a mask. The result has the size of the
    first picture, as the network wants it, unless `keep_size`.
    """
    size, codec = pipeline.sampler.image_size, pipeline.sampler.codec
    rule = pipeline.denoiser.reference_size
    edit: Edit
    if strength is not None and image is None:
        cure = "give image=PICTURE, or leave strength= out"
        raise ConfigError("there is no picture to begin from", where="strength", cure=cure)
    if strength is not None and pipeline.denoiser.inpaint_channels:
        what = "this network inpaints: it begins from noise inside the mask"
        raise ConfigError(what, where="strength", cure="leave strength= out")
    chosen_size = size if keep_size else None
    if references and image is None and mask is None:
        seen_references.require_some(pipeline.references)
        if rule is None and pipeline.references:
            rule = "as_is"  # it was trained on pairs, of any size
        if rule is None:
            cure = "model=flux1_kontext, or checkpoint=RUN of a run that was trained on data=pairs"
            raise ConfigError(
                "this network was not trained on references", where="reference", cure=cure
            )
        side = pipeline.denoiser.image_size or 0
        edit = References(
            codec, references, rule, pipeline.cell, max(size, (side, side), key=math.prod)
        )
    elif image is not None and not references and not pipeline.denoiser.inpaint_channels:
        edit = Start(codec, image, mask, strength, pipeline.cell, chosen_size, max(size))
    elif image is not None and mask is not None and not references:
        edit = Inpainting(codec, image, mask, pipeline.cell, chosen_size, max(size))
    elif references:
        cure = "leave image= and mask= out, or reference="
        raise ConfigError(
            "reference= cannot be combined with image= or mask=", where="reference", cure=cure
        )
    elif image is None:
        cure = "give image=PICTURE, of which the mask marks a part"
        raise ConfigError("mask= without image=", where="mask", cure=cure)
    else:
        cure = "give mask=PICTURE, white where it paints"
        raise ConfigError("this network inpaints, and no mask is given", where="mask", cure=cure)
    image_size = size if keep_size else edit.size
    stages = {"condition_fn": edit, "initial": edit.initial, "finish": edit.finish}
    sampler = replace(pipeline.sampler, image_size=image_size, **stages)
    entries = {} if edit.strength is None else {"strength": edit.strength}
    return replace(pipeline, sampler=sampler).with_metadata(pictures=edit.hashes, **entries)
