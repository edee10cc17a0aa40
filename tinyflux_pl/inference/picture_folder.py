"""A folder of numbered images, safe for concurrent writers."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path
from typing import Any

from PIL import Image

from tinyflux_pl.core import files
from tinyflux_pl.sampling.picture import save_png

# Errors of file systems without hard links, such as FAT.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


class PictureFolder:
    """Writes image_0000.png and so on, and grids; numbers continue from the existing files.

    No file is ever replaced: of two processes that choose one name, one takes the next.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.first = self._next = self._next_number("image")

    def add(self, picture: Image.Image, metadata: dict[str, Any]) -> Path:
        """Write the next picture."""
        path = self._write(picture, metadata, (f"image_{n:04d}.png" for n in count(self._next)))
        self._next = int(path.stem.rpartition("_")[2]) + 1
        return path

    def add_grid(self, sheet: Image.Image, metadata: dict[str, Any]) -> Path:
        """Write the grid of the added images: grid.png, or with the number of its first image."""
        unnumbered = [] if self.first else ["grid.png"]
        numbers = count(max(self.first, 1))
        names = chain(unnumbered, (f"grid_{n:04d}.png" for n in numbers))
        return self._write(sheet, metadata, names)

    def _next_number(self, stem: str) -> int:
        pattern = re.compile(rf"{stem}_(\d+)\.png")
        matches = (pattern.fullmatch(file.name) for file in self.folder.glob("*.png"))
        numbers = [int(match[1]) for match in matches if match]
        return max(numbers, default=-1) + 1

    def _write(self, picture: Image.Image, metadata: dict[str, Any], names: Iterable[str]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        staging = files.staging_path(self.folder / "picture.png")
        try:
            save_png(picture, staging, metadata)
            for name in names:
                if _moved_if_free(staging, self.folder / name):
                    return self.folder / name
        finally:
            staging.unlink(missing_ok=True)
        raise AssertionError("names are endless")


def _moved_if_free(staging: Path, path: Path) -> bool:
    """Move a finished file to `path`; return False, with no effect, if the name is in use."""
    try:
        os.link(staging, path)  # unlike a rename, it fails if the name is in use
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            open(path, "xb").close()  # reserves the name
        except FileExistsError:
            return False
        os.replace(staging, path)
    return True
