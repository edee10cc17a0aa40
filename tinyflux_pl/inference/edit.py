"""Conditioning on images: references (FLUX.1 Kontext), or an image with a mask (FLUX.1 Fill)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from tinyflux_pl.codecs.inpaint_mask import inpaint_input
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.files import sha256
from tinyflux_pl.core.protocols import Codec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.data.images import resize_rules as pictures
from tinyflux_pl.sampling.initial import Initial

LARGEST = 16


class Edit(ABC):
    """Adds image conditioning to text embeddings; images are encoded on first use.

    `size` (height, width) is the default size of the image to sample. `strength` is the part of the
    way that is taken, where sampling begins from a picture.
    """

    size: tuple[int, int]
    strength: float | None = None

    def __init__(self, codec: Codec, files: Sequence[str | Path]) -> None:
        self.codec = codec
        self.hashes = [(Path(file).name, sha256(Path(file).expanduser())[:12]) for file in files]

    def initial(self) -> Initial | None:
        """The picture that sampling begins from; None: it begins from noise."""
        return None

    def finish(self, picture: Tensor) -> Tensor:
        """The decoded picture (B, 3, H, W) as it is returned."""
        return picture

    @abstractmethod
    def __call__(self, text: TextEmbeddings, rows: slice) -> Conditioning:
        """The conditioning of this text; each image is a batch of one."""


class References(Edit):
    """Clean pictures as further tokens of the sequence, resized by the network's own rule.

    ConfigError for one of more than LARGEST times the pixels of `drawn` (height, width), what the
    network draws.
    """

    def __init__(
        self,
        codec: Codec,
        files: Sequence[str | Path],
        rule: str,
        cell: int,
        drawn: tuple[int, int],
    ) -> None:
        resize = pictures.rule_named(rule)
        self.pixels = [resize(pictures.read_picture(file), cell) for file in files]
        for file, pixels in zip(files, self.pixels, strict=True):
            height, width = pixels.shape[:2]
            if height * width > LARGEST * math.prod(drawn):
                what = f"{width} x {height} pixels beside pictures of {drawn[1]} x {drawn[0]}"
                raise ConfigError(
                    what, where=str(file), cure="make it about as large as what the network draws"
                )
        super().__init__(codec, files)
        height, width = self.pixels[0].shape[:2]
        self.size = (height, width)

    @cached_property
    def latents(self) -> tuple[Tensor, ...]:
        """The latents of each reference, by the mode of the codec's posterior."""
        return tuple(self.codec.encode(pictures.image_tensor(pixels)) for pixels in self.pixels)

    def __call__(self, text: TextEmbeddings, rows: slice) -> Conditioning:
        return Conditioning(text, references=self.latents)


class Inpainting(Edit):
    """An image and a mask, white where to paint.

    `size` None is the image's own, at most side x side.
    """

    def __init__(
        self,
        codec: Codec,
        image: str | Path,
        mask: str | Path,
        cell: int,
        size: tuple[int, int] | None,
        side: int,
    ) -> None:
        self.pixels, self.mask = pictures.read_picture(image), pictures.read_inpaint_mask(mask)
        super().__init__(codec, (image, mask))
        require_one_size(self.pixels, self.mask, mask)
        self.size = size or pictures.natural_size(self.pixels, cell, side)

    @cached_property
    def channels(self) -> Tensor:
        """The inpainting channels, which the network reads beside the noisy latents."""
        images = pictures.image_tensor(pictures.resized(self.pixels, *self.size))
        return inpaint_input(
            self.codec, images, pictures.mask_tensor(pictures.resized(self.mask, *self.size))
        )

    def __call__(self, text: TextEmbeddings, rows: slice) -> Conditioning:
        return Conditioning(text, inpaint=self.channels)


def require_one_size(pixels: pictures.Pixels, mask: pictures.Pixels, file: str | Path) -> None:
    """Raise ConfigError unless a mask covers its picture."""
    if pixels.shape[:2] != mask.shape:
        (height, width), (rows, columns) = mask.shape, pixels.shape[:2]
        what = f"the mask is {width} x {height}, the picture {columns} x {rows}"
        cure = "draw the mask over the picture, in its size"
        raise ConfigError(what, where=str(file), cure=cure)
