"""Photographs of scikit-image as a folder of pictures, for trials with real pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import MissingDependency

SIDE = 256  # pixels of the shorter side
# of those that come with the package: name -> what it shows
CAPTIONED = {
    "astronaut": "a photo of an astronaut in an orange suit",
    "brick": "a photo of a brick wall",
    "chelsea": "a photo of a ginger cat",
    "coffee": "a photo of a cup of coffee on a wooden table",
    "grass": "a photo of grass",
    "gravel": "a photo of gravel",
    "moon": "a photo of the surface of the moon",
    "rocket": "a photo of a rocket on its launch pad",
}
SUBJECT = "chelsea"
CUTS = ((0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (0.5, 1.0))  # where a cut of the subject lies


def write_folder(parent: Path, captioned: bool) -> Path:
    """The new folder below `parent`: varied photographs with captions, or one subject without."""
    folder = parent / ("photographs" if captioned else "subject")
    if not folder.is_dir():
        staging = files.staging_path(folder)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        (_write_captioned if captioned else _write_subject)(staging)
        staging.rename(folder)
    return folder


def _write_captioned(folder: Path) -> None:
    for name, caption in CAPTIONED.items():
        picture = _photograph(name)
        picture.thumbnail((4 * SIDE, SIDE))
        picture.save(folder / f"{name}.png")
        files.write_bytes(folder / f"{name}.txt", f"{caption}\n".encode())


def _write_subject(folder: Path) -> None:
    """Four overlapping crops of one photograph, in place of photographs of a subject."""
    picture = _photograph(SUBJECT)
    side = int(0.8 * min(picture.size))
    for number, (right, down) in enumerate(CUTS):
        left = int(right * (picture.width - side))
        top = int(down * (picture.height - side))
        cut = picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
        cut.save(folder / f"{SUBJECT}_{number}.png")


def _photograph(name: str) -> Image.Image:
    try:
        from skimage import data
    except ModuleNotFoundError as error:
        cure = "pip install scikit-image, or name pictures of your own: data.root=FOLDER"
        what = f"photographs need the package {error.name}"
        raise MissingDependency(what, where="simulate", cure=cure) from error
    return Image.fromarray(getattr(data, name)()).convert("RGB")
