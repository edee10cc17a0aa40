"""Sampling from an initial picture, or in a part of it, with any network."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from tinyflux_pl.core.protocols import Codec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.data.images import resize_rules as pictures
from tinyflux_pl.inference.edit import Edit, require_one_size
from tinyflux_pl.sampling.initial import Initial

STRENGTH = 0.6  # of a picture without a mask, as in diffusers' pipelines


class Start(Edit):
    """An initial image for any network; `strength` is the share of the way back to noise.

    With a mask, the part outside its white area is pasted back unchanged. `size` None is the
    picture's own, at most side x side.
    """

    def __init__(
        self,
        codec: Codec,
        image: str | Path,
        mask: str | Path | None,
        strength: float | None,
        cell: int,
        size: tuple[int, int] | None,
        side: int,
    ) -> None:
        self.pixels = pictures.read_picture(image)
        self.mask = None if mask is None else pictures.read_inpaint_mask(mask)
        self.strength = strength if strength is not None else STRENGTH if mask is None else 1.0
        super().__init__(codec, (image,) if mask is None else (image, mask))
        if self.mask is not None and mask is not None:
            require_one_size(self.pixels, self.mask, mask)
        self.size = size or pictures.natural_size(self.pixels, cell, side)

    @cached_property
    def image(self) -> Tensor:
        """The picture (1, 3, H, W) in the size that is drawn."""
        return pictures.image_tensor(pictures.resized(self.pixels, *self.size))

    @cached_property
    def coverage(self) -> Tensor | None:
        """The mask (1, 1, H, W) from 0 (kept) to 1 (drawn anew)."""
        if self.mask is None:
            return None
        return torch.from_numpy(pictures.resized(self.mask, *self.size).astype("float32") / 255)[
            None, None
        ]

    def initial(self) -> Initial:
        """Latents, strength, and the mask of latent cells: the maximum over each cell's pixels."""
        mask = self.coverage
        if mask is not None:
            mask = torch.nn.functional.max_pool2d(mask, self.codec.latent_spec.downsample)
        return Initial(self.latents, self.strength, mask)

    @cached_property
    def latents(self) -> Tensor:
        """The picture's latents, by the mode of the codec's posterior."""
        return self.codec.encode(self.image)

    def finish(self, picture: Tensor) -> Tensor:
        """The drawn picture inside the mask, the initial one outside, blended at soft edges."""
        if self.coverage is None:
            return picture
        mixed = torch.lerp(self.image, picture, self.coverage)
        return torch.where(self.coverage == 0, self.image, mixed)

    def __call__(self, text: TextEmbeddings, rows: slice) -> Conditioning:
        return Conditioning(text)
