"""A folder of numbered pictures: each gets a name that nobody has, whoever else is writing there."""

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

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)  # file systems such as FAT have none


class PictureFolder:
    """image_0000.png and so on, and a grid beside them; the numbers go on from the pictures that are there.

    No file is ever replaced: of two processes that want one name, one takes the next.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.first = self._next = self._free("image")

    def add(self, picture: Image.Image, metadata: dict[str, Any]) -> Path:
        """Write the next picture."""
        path = self._written(picture, metadata, (f"image_{n:04d}.png" for n in count(self._next)))
        self._next = int(path.stem.rpartition("_")[2]) + 1
        return path

    def add_grid(self, sheet: Image.Image, metadata: dict[str, Any]) -> Path:
        """Write the sheet of what was added: grid.png, or with the number of its first picture."""
        plain = [] if self.first else ["grid.png"]
        numbers = count(max(self.first, 1))
        names = chain(plain, (f"grid_{n:04d}.png" for n in numbers))
        return self._written(sheet, metadata, names)

    def _free(self, stem: str) -> int:
        pattern = re.compile(rf"{stem}_(\d+)\.png")
        taken = [int(found[1]) for file in self.folder.glob("*.png") if (found := pattern.fullmatch(file.name))]
        return max(taken, default=-1) + 1

    def _written(self, picture: Image.Image, metadata: dict[str, Any], names: Iterable[str]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        staging = files.beside(self.folder / "picture.png")
        try:
            save_png(picture, staging, metadata)
            for name in names:
                if _moved_if_free(staging, self.folder / name):
                    return self.folder / name
        finally:
            staging.unlink(missing_ok=True)
        raise AssertionError("names are endless")


def _moved_if_free(staging: Path, path: Path) -> bool:
    """Give a finished file its name; False, and nothing happens, where the name is taken."""
    try:
        os.link(staging, path)  # unlike a rename, it refuses a name that is taken
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
