"""Sampling with a map: a pipeline whose network has a control branch."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.hint_forms import PIXELS
from tinyflux_pl.core.protocols import Codec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.data.images import resize_rules as pictures
from tinyflux_pl.data.images.canny import canny_map
from tinyflux_pl.inference.edit import Edit
from tinyflux_pl.inference.pipeline import Pipeline


class ControlMap(Edit):
    """A map of exactly `size` (height, width), in the form that the network reads.

    With `canny` the file is a picture, and its edges are the map.
    """

    def __init__(
        self, codec: Codec, file: str | Path, form: str, size: tuple[int, int], canny: bool
    ) -> None:
        pixels = pictures.read_picture(file)
        if pixels.shape[:2] != size:
            (height, width), (rows, columns) = size, pixels.shape[:2]
            raise ConfigError(
                f"the map is {columns} x {rows}, and {width} x {height} are drawn",
                where=f"control={file}",
                cure=f"a map of that size, or draw height={rows} width={columns}",
            )
        super().__init__(codec, (file,))
        self.pixels = canny_map(pixels) if canny else pixels
        self.form, self.size = form, size

    @cached_property
    def hint(self) -> Tensor:
        """The map in the network's form: latents, or pixels in [0, 1]."""
        images = pictures.image_tensor(self.pixels)
        return (images + 1) / 2 if self.form == PIXELS else self.codec.encode(images)

    def __call__(self, text: TextEmbeddings, rows: slice) -> Conditioning:
        return Conditioning(text, hint=self.hint.to(text.tokens.device, torch.float32))


def controlled(
    pipeline: Pipeline, file: str | Path | None, *, canny: bool = False, strength: float = 1.0
) -> Pipeline:
    """The pipeline conditioned on the map in `file`, with its influence scaled by `strength`.

    ConfigError for a network without a control branch, a branch without a map, and a map of another
    size than is drawn.
    """
    branch = pipeline.denoiser.branch
    if branch is None:
        cure = "checkpoint=RUN of method=controlnet, or leave control= out"
        raise ConfigError("this network reads no maps", where="control", cure=cure)
    if file is None:
        cure = "control=MAP, a picture; its own pictures' edges: control_hint=canny"
        raise ConfigError("this run needs a map", where="control", cure=cure)
    codec, size = pipeline.sampler.codec, pipeline.sampler.image_size
    map_ = ControlMap(codec, file, pipeline.denoiser.hint_form, size, canny)
    branch.strength = strength
    entry = {"hint": "canny" if canny else "given", "strength": strength}
    sampler = replace(pipeline.sampler, condition_fn=map_)
    return replace(pipeline, sampler=sampler).with_metadata(pictures=map_.hashes, control=entry)
