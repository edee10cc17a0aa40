"""Files of a dataset: inside its folder, bounded in size, and regular."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tinyflux_pl.core.errors import DataError, ImageError, UntrustedFile
from tinyflux_pl.core.files import contained_join
from tinyflux_pl.data.images.formats import suffixes
from tinyflux_pl.data.records import caption_text

MASK_SUFFIX = ".mask.png"
OF_FILE_MANAGERS = ("thumbs.db", "ehthumbs.db", "desktop.ini")  # written by them unasked
MAX_CAPTION_BYTES = 2**20
MAX_TABLE_BYTES = 2**30
CURE = "name files by paths relative to the dataset's folder, inside it"


def inside(root: Path, relative: str) -> Path:
    """The file that a dataset names.

    UntrustedFile if it leaves `root`, links included, or cannot be a name.
    """
    try:
        return contained_join(root, relative)
    except RuntimeError as error:  # before Python 3.13; from then on reading it fails
        raise ImageError(
            "a link that leads to itself", where=str(root / relative), cure="remove it"
        ) from error
    except (OSError, ValueError) as error:  # too long, or half a surrogate pair
        what = f"not a path inside the dataset: {relative[:200]!r} ({type(error).__name__})"
        raise UntrustedFile(what, where=str(root), cure=CURE) from error


@dataclass(frozen=True)
class Scan:
    """The files below a folder by relative path, sorted.

    Hidden names and files of file managers are left out.
    """

    images: list[str]
    masks: list[str]
    other_files: list[str]


def scanned(root: Path) -> Scan:
    """Walk a folder, but no links to folders: one that leads outside is an UntrustedFile.

    Raises DataError for a folder that cannot be read.
    """
    images, masks, other_files = [], [], []
    for folder, inner, files in os.walk(root, onerror=_unreadable):
        inner[:] = [name for name in inner if not name.startswith(".")]
        below = os.path.relpath(folder, root)
        lead = "" if below == "." else f"{Path(below).as_posix()}/"
        for name in [name for name in inner if os.path.islink(os.path.join(folder, name))]:
            inside(root, lead + name)
            inner.remove(name)
        # a folder with an image's name too: opening it will tell
        image_suffixes = suffixes()
        listed = set(files)
        for name in (*inner, *files):
            lower = name.lower()
            if name.startswith(".") or lower in OF_FILE_MANAGERS:
                continue
            if lower.endswith(MASK_SUFFIX):
                masks.append(lead + name)
            elif os.path.splitext(lower)[1] in image_suffixes:
                images.append(lead + name)
            elif name in listed:
                other_files.append(lead + name)
    return Scan(sorted(images), sorted(masks), sorted(other_files))


def images_and_masks(root: Path) -> tuple[list[str], list[str]]:
    """The images below `root`, and the masks."""
    scan = scanned(root)
    return scan.images, scan.masks


def _unreadable(error: OSError) -> None:
    what = f"the folder cannot be read: {error.strerror}"
    raise DataError(
        what, where=str(error.filename), cure="make it readable, or move it out of the dataset"
    ) from error


def is_file(path: Path) -> bool:
    """True if the file exists; False also for a name that the file system cannot hold."""
    try:
        return path.is_file()
    except OSError:
        return False


def mask_of(image: str) -> str:
    """The path of an image's mask."""
    return os.path.splitext(image)[0] + MASK_SUFFIX


def text_of(path: str | Path, most: int = MAX_TABLE_BYTES) -> str:
    """A file's UTF-8 text; CaptionError if it is something else, or larger than `most` bytes."""
    return caption_text.text_of(path, most)
