"""The files of image pairs: their content by hash, their pixels, masks and sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tinyflux_pl.core.errors import DataError, ImageError
from tinyflux_pl.data.images.decode import content_of, decode, decode_mask, inspect
from tinyflux_pl.data.records.dataset_files import inside


class PairFiles:
    """Files below `root`, listed by their content: one that changes afterwards is refused.

    `hashes` maps each path to the sha256 of its bytes. ImageError for a picture of more than
    `max_pixels`, and for damaged ones.
    """

    def __init__(self, root: Path, paths: Iterable[str], max_pixels: int) -> None:
        self.root, self.max_pixels = root, max_pixels
        self.hashes = {path: hashlib.sha256(self._bytes(path)).hexdigest() for path in paths}

    def size(self, path: str) -> tuple[int, int]:
        """The (height, width) of a picture, upright, from its header."""
        content, name = self._content(path), str(self.root / path)
        width, height = inspect(content, max_pixels=self.max_pixels, name=name)
        return height, width

    def pixels(self, path: str) -> np.ndarray:
        """RGB pixels (h, w, 3), upright."""
        return decode(self._content(path), max_pixels=self.max_pixels, name=str(self.root / path))

    def mask(self, path: str, size: tuple[int, ...]) -> np.ndarray:
        """The luminance (h, w) of a mask that lies over a picture of that `size`."""
        name = str(self.root / path)
        mask = decode_mask(self._content(path), max_pixels=self.max_pixels, name=name)
        if mask.shape != size:
            (height, width), (rows, columns) = mask.shape, size
            what = (
                f"the mask and its image are of different sizes, {width} x {height} and {columns} "
                f"x {rows}"
            )
            raise ImageError(what, where=name, cure="make the mask as large as the image")
        return mask

    def _content(self, path: str) -> bytes:
        content = self._bytes(path)
        if hashlib.sha256(content).hexdigest() != self.hashes[path]:
            raise DataError(
                "the file changed after it was listed",
                where=str(self.root / path),
                cure="start again",
            )
        return content

    def _bytes(self, path: str) -> bytes:
        return content_of(inside(self.root, path), str(self.root / path))
