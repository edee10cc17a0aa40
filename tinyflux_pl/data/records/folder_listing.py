"""The images of a folder with captions and masks: listed once for all splits."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyflux_pl.core.errors import DataError, ImageError
from tinyflux_pl.core.printable import printable
from tinyflux_pl.core.progress import track
from tinyflux_pl.data.images.decode import content_of, decode, decode_mask, inspect
from tinyflux_pl.data.images.decode_log import ValidatedImages
from tinyflux_pl.data.images.formats import suffixes
from tinyflux_pl.data.records import unused_files
from tinyflux_pl.data.records.dataset_files import (
    MASK_SUFFIX,
    MAX_CAPTION_BYTES,
    inside,
    mask_of,
    scanned,
    text_name,
    text_of,
)
from tinyflux_pl.data.records.json_lines import captions_by_image, table_in

MARKS = "marks something"  # what is remembered of a mask
HEADER = "header"  # and of a file whose header is that of an image


@dataclass(frozen=True)
class Entry:
    """One image that was found: path relative to the root, hash of its bytes, caption, hash of its
    mask.
    """

    path: str
    sha256: str
    caption: str
    mask_sha256: str = ""


class FolderListing:
    """`entries` of all usable images in the order of their paths, what was `skipped`, and
    `findings`.

    Raises CaptionError, DataError, ImageError (naming up to ten files, with the count),
    UntrustedFile.
    """

    def __init__(
        self,
        root: Path,
        caption_file: str | None,
        skip_bad: bool,
        max_pixels: int,
        decoded: str | None,
    ) -> None:
        self.root, self.skip_bad, self.max_pixels = root, skip_bad, max_pixels
        self._base = root.resolve()
        self.validated = ValidatedImages(decoded, max_pixels)
        self.table = table_in(root, caption_file)
        self.skipped: list[str] = []
        self.entries = self._entries(self.table)

    def marks(self, mask_sha256: str) -> bool:
        """True if a decoded mask marks anything."""
        return self.validated.holds(mask_sha256, MARKS)

    def require_decodable(self, entry: Entry) -> None:
        """Decode an image and its mask, unless the same bytes decoded before; ImageError."""
        if not self.validated.holds(entry.sha256, entry.mask_sha256):
            _, mask = self.pixels(entry)
            self.validated.add(entry.sha256, entry.mask_sha256)
            if mask is not None and mask.any():
                self.validated.add(entry.mask_sha256, MARKS)

    def pixels(self, entry: Entry) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels (h, w, 3) and, where there is one, the mask (h, w) of the same size."""
        content = self._read(entry.path, entry.sha256)
        pixels = decode(content, max_pixels=self.max_pixels, name=str(self.root / entry.path))
        if not entry.mask_sha256:
            return pixels, None
        mask_path = mask_of(entry.path)
        content, name = self._read(mask_path, entry.mask_sha256), str(self.root / mask_path)
        mask = decode_mask(content, max_pixels=self.max_pixels, name=name)
        if mask.shape != pixels.shape[:2]:
            sizes = " and ".join(
                f"{width} x {height}" for height, width in (mask.shape, pixels.shape[:2])
            )
            what = f"the mask and its image are of different sizes, {sizes}"
            raise ImageError(what, where=name, cure="make the mask as large as the image")
        return pixels, mask

    def unusable(self, bad: list[str]) -> ImageError:
        cure = "replace or remove them, or leave out unreadable images: data.skip_bad=true"
        if any(re.search(r"more than [\d,]+( pixels)?$", line) for line in bad):
            cure += "; larger pictures are read with a higher data.max_pixels"
        return ImageError(f"{listed(bad)} unusable", where=str(self.root), cure=cure)

    def _read(self, path: str, expected: str) -> bytes:
        content = content_of(self._path_of(path), str(self.root / path))
        if hashlib.sha256(content).hexdigest() != expected:
            raise DataError(
                "the file changed after it was listed",
                where=str(self.root / path),
                cure="start again",
            )
        return content

    def _entries(self, described: Path | None) -> list[Entry]:
        captions = None if described is None else captions_by_image(self.root, described)
        scan = scanned(self.root)
        images, masks, texts = scan.images, scan.masks, set(scan.other_files)
        if alone := sorted(set(masks) - set(map(mask_of, images))):
            cure = f"call the mask of NAME.png NAME{MASK_SUFFIX}, or remove it"
            raise DataError(
                f"{listed(alone)}: masks that no image has", where=str(self.root), cure=cure
            )
        table = None if described is None else described.relative_to(self.root.resolve()).as_posix()
        self.findings = unused_files.of_folder(
            images, scan.other_files, table, captions, self._caption
        )
        known_masks = set(masks)
        strange = sorted(set(captions or ()) - set(images))
        entries, bad = (
            [],
            [printable(f"{name}: has a caption, but is not read as an image") for name in strange],
        )
        for relative in track(images, "folder: list", len(images), "image", leave=False):
            if captions is not None:
                caption = captions.get(relative, "")
            else:
                caption = self._caption(relative) if text_name(relative) in texts else ""
            mask = mask_of(relative)
            try:
                masked = mask in known_masks
                entry = Entry(
                    relative,
                    self._digest(relative),
                    caption.strip(),
                    self._digest(mask) if masked else "",
                )
                if self.skip_bad:  # decoded whole now: the count must not change later
                    self.require_decodable(entry)
            except ImageError as error:
                bad.append(printable(f"{Path(error.where).relative_to(self.root)}: {error.what}"))
            else:
                entries.append(entry)
        # decoding took its time; a header alone is no reason to write where a run is refused
        if self.skip_bad:
            self.validated.save()
        if bad and not self.skip_bad:
            raise self.unusable(bad)
        self.skipped = bad
        if not entries:
            what = f"no usable image ({', '.join(suffixes())})" + (
                f"; {listed(bad)} left out" if bad else ""
            )
            cure = f"set data.root to the folder of images{self.hint()}"
            raise DataError(what, where=str(self.root), cure=cure)
        return entries

    def hint(self) -> str:
        """Files that are not read, for a message that something is missing."""
        kinds = ("needs an extra", "kind not read", "table not read", "caption alone")
        lines = (f"{f.kind}: {f.line()}" for f in self.findings if f.kind in kinds)
        return printable("".join(f"; {line}" for line in lines))

    def _digest(self, relative: str) -> str:
        """The sha256 of a file whose header is that of an image; ImageError naming it otherwise."""
        name = f"{self.root}/{relative}"
        content = content_of(self._path_of(relative), name)
        sha256 = hashlib.sha256(content).hexdigest()
        if not self.validated.holds(sha256, HEADER):
            inspect(content, max_pixels=self.max_pixels, name=name)
            self.validated.add(sha256, HEADER)
        return sha256

    def _caption(self, image: str) -> str:
        """The text of `name.txt` beside `name.png`."""
        return text_of(self._path_of(text_name(image)), MAX_CAPTION_BYTES)

    def _path_of(self, relative: str) -> str | Path:
        """The path of a file; links are followed only within the folder."""
        path = f"{self._base}/{relative}"  # no Path: of a hundred thousand it takes seconds
        return inside(self.root, relative) if os.path.islink(path) else path


_SHARED: ContextVar[dict[tuple, FolderListing] | None] = ContextVar("listings", default=None)


@contextmanager
def shared() -> Generator[None]:
    """Within the block a folder is listed once, whatever is built from it."""
    before = _SHARED.set({} if _SHARED.get() is None else _SHARED.get())
    try:
        yield
    finally:
        _SHARED.reset(before)


def listing_of(
    root: Path, caption_file: str | None, skip_bad: bool, max_pixels: int, decoded: str | None
) -> FolderListing:
    """The listing of a folder, of an earlier call within `shared()` where there was one."""
    arguments = (root, caption_file, skip_bad, max_pixels, decoded)
    listings = _SHARED.get()
    if listings is None:
        return FolderListing(*arguments)
    if arguments not in listings:
        listings[arguments] = FolderListing(*arguments)
    return listings[arguments]


def listed(names: Sequence[str]) -> str:
    """The number of files, and the first ten."""
    first = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return f"{len(names)} file{'s' if len(names) != 1 else ''} ({first})"
