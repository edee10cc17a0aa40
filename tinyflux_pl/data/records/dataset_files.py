"""Files of a dataset: inside its folder, bounded, and never anything but regular files."""

from __future__ import annotations

import os
from pathlib import Path

from tinyflux_pl.core.errors import CaptionError, DataError, ImageError, UntrustedFile
from tinyflux_pl.core.files import contained_join
from tinyflux_pl.data.image_formats import suffixes

MASK_SUFFIX = ".mask.png"
MAX_CAPTION_BYTES = 2**20
MAX_TABLE_BYTES = 2**30
CURE = "name files by paths relative to the dataset's folder, inside it"


def inside(root: Path, relative: str) -> Path:
    """The file that a dataset names; UntrustedFile if it leaves `root`, links included, or cannot be a name."""
    try:
        return contained_join(root, relative)
    except RuntimeError as error:  # before Python 3.13; from then on reading it fails
        raise ImageError("a link that leads to itself", where=str(root / relative), cure="remove it") from error
    except (OSError, ValueError) as error:  # too long, or half a surrogate pair
        what = f"not a path inside the dataset: {relative[:200]!r} ({type(error).__name__})"
        raise UntrustedFile(what, where=str(root), cure=CURE) from error


def images_and_masks(root: Path) -> tuple[list[str], list[str]]:
    """The images below `root` by relative path, sorted, and likewise the masks; hidden names left out.

    Folders are walked, links to folders are not: one that leads outside is an UntrustedFile. Raises DataError
    for a folder that cannot be read.
    """
    found = []
    for folder, inner, files in os.walk(root, onerror=_unreadable):
        inner[:] = [name for name in inner if not name.startswith(".")]
        below = Path(folder).relative_to(root)
        for name in [name for name in inner if (root / below / name).is_symlink()]:
            inside(root, (below / name).as_posix())
            inner.remove(name)
        # a folder with an image's name too: opening it will tell
        shown = (name for name in (*inner, *files) if not name.startswith("."))
        found += [(below / name).as_posix() for name in shown if Path(name).suffix.lower() in suffixes()]
    masks = {name for name in found if name.lower().endswith(MASK_SUFFIX)}
    return sorted(name for name in found if name not in masks), sorted(masks)


def _unreadable(error: OSError) -> None:
    what = f"the folder cannot be read: {error.strerror}"
    raise DataError(what, where=str(error.filename), cure="make it readable, or move it out of the dataset") from error


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that the file system cannot hold is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def mask_of(image: str) -> str:
    """Where the mask of an image lies."""
    return Path(image).with_suffix(MASK_SUFFIX).as_posix()


def caption_beside(root: Path, image: str) -> str:
    """The text of `name.txt` beside `name.png`, empty if there is none."""
    path = inside(root, Path(image).with_suffix(".txt").as_posix())
    return text_of(path, MAX_CAPTION_BYTES) if is_file(path) else ""


def text_of(path: Path, most: int = MAX_TABLE_BYTES) -> str:
    """A file's UTF-8 text; CaptionError if it is something else, or larger than `most` bytes."""
    try:
        size = path.stat().st_size
        if size > most:
            raise CaptionError(f"{size:,} bytes of captions, more than {most:,}", where=str(path), cure="shorten it")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CaptionError("not UTF-8 text", where=str(path), cure="save it as UTF-8") from error
    except OSError as error:
        raise CaptionError(f"cannot be read: {error.strerror}", where=str(path), cure="make it readable") from error
