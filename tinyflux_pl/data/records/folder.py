"""Images in a folder with their captions beside them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core.errors import CaptionError, ConfigError, DataError, ImageError
from tinyflux_pl.core.printable import printable
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.protocols import Record
from tinyflux_pl.data.decoded_before import DecodedBefore
from tinyflux_pl.data.image_decoding import (
    DECODING_VERSION,
    MAX_PIXELS,
    content_of,
    decode,
    decode_mask,
    fit,
    fit_mask,
    inspect,
)
from tinyflux_pl.data.image_formats import suffixes
from tinyflux_pl.data.records.content_split import held_out
from tinyflux_pl.data.records.dataset_files import (
    MASK_SUFFIX,
    caption_beside,
    images_and_masks,
    inside,
    mask_of,
)
from tinyflux_pl.data.records.json_lines import captions_by_image, table_in
from tinyflux_pl.data.records.record_source import RecordSource

SPLITS = ("train", "validation", "all")


@dataclass(frozen=True)
class _Entry:
    """One image that was found: path relative to the root, hash of its bytes, caption, hash of its mask."""

    path: str
    sha256: str
    caption: str
    mask_sha256: str = ""


class Folder(RecordSource):
    """Records of the images under `root`, in the order of their paths; names with a leading dot are left out.

    `size` is a side, or height and width.
    Captions come from `caption_file` (default: metadata.jsonl or metadata.json where there is one),
    else from `name.txt` beside `name.png`. `name.mask.png` is a mask; either all images have one or none.
    The split is drawn from the images' bytes, so that copies of one image never part.
    `decoded` is a file that remembers which images decoded whole: only new ones are judged at the next start.
    Raises CaptionError, ImageError (naming up to ten files, with the count) or UntrustedFile.
    """

    name = "folder"
    reads_files = True

    def __init__(
        self,
        root: str | Path,
        size: int | tuple[int, int] = 64,
        fit_mode: str = "crop",
        split: str = "train",
        validation_fraction: float = 0.05,
        caption_file: str | None = None,
        allow_missing_captions: bool = False,
        skip_bad: bool = False,
        max_pixels: int = MAX_PIXELS,
        decoded: str | None = None,
    ) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        self.root, self.size, self.fit_mode, self.split = Path(root).expanduser(), (height, width), fit_mode, split
        self.validation_fraction, self.skip_bad, self.max_pixels = validation_fraction, skip_bad, max_pixels
        self.image_shape = (height, width, 3)
        known = split in SPLITS and fit_mode in ("crop", "pad")
        if not known or not 0 <= validation_fraction < 1 or min(height, width) < 1:
            what = f"split={split}, fit_mode={fit_mode}, validation_fraction={validation_fraction}, size={size}"
            cure = f"split one of {SPLITS}, fit_mode crop or pad, fraction in [0, 1), size in pixels or [height, width]"
            raise ConfigError(what, where="data", cure=cure)
        if not self.root.is_dir():
            raise DataError("no such folder", where=str(self.root), cure="set data.root to the folder of images")
        self.skipped: list[str] = []
        self._decoded_before = DecodedBefore(decoded, max_pixels)
        described = table_in(self.root, caption_file)
        entries = self._entries(described)
        self._entries_of_split = self._chosen(entries)
        without = [e.path for e in entries if not e.caption]
        if without and not allow_missing_captions:
            how = f"add them to {described}" if described else "write NAME.txt beside each"
            cure = f"{how}, or train these without a caption: data.allow_missing_captions=true"
            raise CaptionError(f"{_listed(without)} without a caption", where=str(self.root), cure=cure)
        masked = [e.path for e in entries if e.mask_sha256]
        if masked and len(masked) < len(entries):
            bare = [e.path for e in entries if not e.mask_sha256]
            cure = f"add NAME{MASK_SUFFIX} beside them, or remove all masks"
            raise DataError(f"{_listed(bare)} without a mask while others have one", where=str(self.root), cure=cure)

    def __len__(self) -> int:
        return len(self._entries_of_split)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        entry = self._entries_of_split[index]
        pixels, mask = self._decoded(entry)
        mask = None if mask is None else fit_mask(mask, self.size, self.fit_mode)
        image = fit(pixels, self.size, self.fit_mode)
        identity = fingerprints.sample_id(image.tobytes(), entry.caption)
        return Record(image, entry.caption, identity, mask, entry.path, {"original_size": list(pixels.shape[:2])})

    def fingerprint(self) -> dict[str, Any]:
        """What the pixels, captions and their order depend on: not the root, not times, not file names."""
        return {
            "name": self.name,
            "content": fingerprints.of([[e.sha256, e.caption, e.mask_sha256] for e in self._entries_of_split]),
            "count": len(self),
            "split": self.split,
            "size": self.size[0] if self.size[0] == self.size[1] else list(self.size),
            "fit": self.fit_mode,
            "decoding": DECODING_VERSION,
        }

    def sample_keys(self) -> list[list[Any]]:
        """What each record is made from: image, caption and mask by content, and how they are fitted."""
        fitted = [DECODING_VERSION, *self.size, self.fit_mode]
        return [[*fitted, e.sha256, e.caption, e.mask_sha256] for e in self._entries_of_split]

    def check(self) -> None:
        """Decode every image and mask once, so that a damaged one is named before work on the others is spent."""
        bad = []
        for entry in track(self._entries_of_split, f"{self.name}/{self.split}: check", len(self), "image"):
            try:
                self._require_whole(entry)
            except ImageError as error:
                bad.append(printable(f"{Path(error.where).relative_to(self.root)}: {error.what}"))
        self._decoded_before.save()
        if bad:
            raise self._unusable(bad)

    def _require_whole(self, entry: _Entry) -> None:
        """Decode an image and its mask, unless the same bytes decoded before; ImageError."""
        if not self._decoded_before.holds(entry.sha256, entry.mask_sha256):
            self._decoded(entry)
            self._decoded_before.add(entry.sha256, entry.mask_sha256)

    def _decoded(self, entry: _Entry) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels (h, w, 3) and, where there is one, the mask (h, w) of the same size."""
        content = self._read(entry.path, entry.sha256)
        pixels = decode(content, max_pixels=self.max_pixels, name=str(self.root / entry.path))
        if not entry.mask_sha256:
            return pixels, None
        mask_path = mask_of(entry.path)
        content, name = self._read(mask_path, entry.mask_sha256), str(self.root / mask_path)
        mask = decode_mask(content, max_pixels=self.max_pixels, name=name)
        if mask.shape != pixels.shape[:2]:
            sizes = " and ".join(f"{width} x {height}" for height, width in (mask.shape, pixels.shape[:2]))
            what = f"the mask and its image are of different sizes, {sizes}"
            raise ImageError(what, where=name, cure="make the mask as large as the image")
        return pixels, mask

    def _unusable(self, bad: list[str]) -> ImageError:
        cure = "replace or remove them, or leave out unreadable images: data.skip_bad=true"
        if any(re.search(r"more than [\d,]+( pixels)?$", line) for line in bad):
            cure += "; larger pictures are read with a higher data.max_pixels"
        return ImageError(f"{_listed(bad)} unusable", where=str(self.root), cure=cure)

    def _read(self, path: str, expected: str) -> bytes:
        content = content_of(inside(self.root, path), str(self.root / path))
        if hashlib.sha256(content).hexdigest() != expected:
            raise DataError("the file changed after it was listed", where=str(self.root / path), cure="start again")
        return content

    def _entries(self, described: Path | None) -> list[_Entry]:
        captions = None if described is None else captions_by_image(self.root, described)
        images, masks = images_and_masks(self.root)
        if alone := sorted(set(masks) - set(map(mask_of, images))):
            cure = f"call the mask of NAME.png NAME{MASK_SUFFIX}, or remove it"
            raise DataError(f"{_listed(alone)}: masks that no image has", where=str(self.root), cure=cure)
        strange = sorted(set(captions or ()) - set(images))
        entries, bad = [], [printable(f"{name}: has a caption, but is not read as an image") for name in strange]
        for relative in track(images, f"{self.name}/{self.split}: list", len(images), "image", leave=False):
            caption = caption_beside(self.root, relative) if captions is None else captions.get(relative, "")
            mask = mask_of(relative)
            try:
                masked = os.path.lexists(self.root / mask)
                entry = _Entry(relative, self._digest(relative), caption.strip(), self._digest(mask) if masked else "")
                if self.skip_bad:  # decoded whole now: the count must not change later
                    self._require_whole(entry)
            except ImageError as error:
                bad.append(printable(f"{Path(error.where).relative_to(self.root)}: {error.what}"))
            else:
                entries.append(entry)
        self._decoded_before.save()
        if bad and not self.skip_bad:
            raise self._unusable(bad)
        self.skipped = bad
        if not entries:
            what = f"no usable image ({', '.join(suffixes())})" + (f"; {_listed(bad)} left out" if bad else "")
            raise DataError(what, where=str(self.root), cure="set data.root to the folder of images")
        return entries

    def _digest(self, relative: str) -> str:
        """The sha256 of a file whose header is that of an image; ImageError naming it otherwise."""
        name = str(self.root / relative)
        content = content_of(inside(self.root, relative), name)
        inspect(content, max_pixels=self.max_pixels, name=name)
        return hashlib.sha256(content).hexdigest()

    def _chosen(self, entries: list[_Entry]) -> list[_Entry]:
        """The split's entries."""
        if self.split == "all":
            return entries
        held = held_out((e.sha256 for e in entries), self.validation_fraction)
        chosen = [e for e in entries if (e.sha256 in held) == (self.split == "validation")]
        if not chosen:
            cure = "add images (two different ones at least) or set data.validation_fraction above 0"
            raise DataError(f"no image is left for the split {self.split!r}", where=str(self.root), cure=cure)
        return chosen


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return f"{len(names)} file{'s' if len(names) != 1 else ''} ({shown})"
