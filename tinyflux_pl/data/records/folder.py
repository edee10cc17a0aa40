"""Images in a folder with their captions beside them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core.errors import CaptionError, ConfigError, DataError, ImageError
from tinyflux_pl.core.printable import printable
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.protocols import Record
from tinyflux_pl.core.size_conditioning import SIZE_IDS, size_ids
from tinyflux_pl.data.images.decode import DECODING_VERSION, MAX_PIXELS
from tinyflux_pl.data.images.fit import fit, fit_mask
from tinyflux_pl.data.images.mask_coverage import nothing_marked
from tinyflux_pl.data.records.content_split import BOTH_ALL, held_out
from tinyflux_pl.data.records.dataset_files import MASK_SUFFIX
from tinyflux_pl.data.records.folder_listing import Entry, listed, listing_of
from tinyflux_pl.data.records.record_source import RecordSource

SPLITS = ("train", "validation", "all")


class Folder(RecordSource):
    """Records of the images under `root`, in the order of their paths.

    Names with a leading dot are left out.

    `size` is a side, or height and width. Captions come from `caption_file` (default:
    metadata.jsonl or metadata.json where there is one), else from `name.txt` beside `name.png`.
    `name.mask.png` is a mask; either all images have one or none. The split is drawn from the
    images' bytes, so that copies of one image stay together. `decoded` is a file that records which
    images decode: only new ones are checked at the next start. Raises CaptionError, ImageError
    (naming up to ten files, with the count) or UntrustedFile.
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
        self.root = Path(root).expanduser()
        self.size = (height, width)
        self.fit_mode = fit_mode
        self.split = split
        self.validation_fraction = validation_fraction
        self.skip_bad = skip_bad
        self.max_pixels = max_pixels
        self.allow_missing_captions = allow_missing_captions
        self.image_shape = (height, width, 3)
        is_choice = split in SPLITS and fit_mode in ("crop", "pad")
        if not is_choice or not 0 <= validation_fraction < 1 or min(height, width) < 1:
            what = (
                f"split={split}, fit_mode={fit_mode}, validation_fraction={validation_fraction}, "
                f"size={size}"
            )
            cure = (
                f"split one of {SPLITS}, fit_mode crop or pad, fraction in [0, 1), size in pixels "
                "or [height, width]"
            )
            raise ConfigError(what, where="data", cure=cure)
        if not self.root.is_dir():
            raise DataError(
                "no such folder", where=str(self.root), cure="set data.root to the folder of images"
            )
        self._listing = listing_of(self.root, caption_file, skip_bad, max_pixels, decoded)
        entries, described = self._listing.entries, self._listing.table
        self.skipped, self.findings = self._listing.skipped, self._listing.findings
        self.kinds = Counter(os.path.splitext(e.path)[1].lower() for e in entries)
        self._entries_of_split = self._chosen(entries)
        without = [e.path for e in entries if not e.caption]
        if without and not allow_missing_captions:
            how = f"add them to {described}" if described else "write NAME.txt beside each"
            cure = f"{how}, or train these without a caption: data.allow_missing_captions=true"
            cure += self._listing.hint()
            raise CaptionError(
                f"{listed(without)} without a caption", where=str(self.root), cure=cure
            )
        masked = [e.path for e in entries if e.mask_sha256]
        if masked and len(masked) < len(entries):
            bare = [e.path for e in entries if not e.mask_sha256]
            cure = f"add NAME{MASK_SUFFIX} beside them, or remove all masks"
            raise DataError(
                f"{listed(bare)} without a mask while others have one",
                where=str(self.root),
                cure=cure,
            )
        self._listing.validated.save()

    def __len__(self) -> int:
        return len(self._entries_of_split)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        entry = self._entries_of_split[index]
        pixels, mask = self._listing.pixels(entry)
        mask = None if mask is None else fit_mask(mask, self.size, self.fit_mode)
        image = fit(pixels, self.size, self.fit_mode)
        identity = fingerprints.sample_id(image.tobytes(), entry.caption)
        original = list(pixels.shape[:2])
        attributes = {
            "original_size": original,
            SIZE_IDS: size_ids(original, self.size, self.fit_mode),
        }
        return Record(image, entry.caption, identity, mask, entry.path, attributes)

    def fingerprint(self) -> dict[str, Any]:
        """Inputs of the pixels, captions and their order: not the root, times or file names."""
        return {
            "name": self.name,
            "content": fingerprints.hash_json(
                [[e.sha256, e.caption, e.mask_sha256] for e in self._entries_of_split]
            ),
            "count": len(self),
            "split": self.split,
            "size": self.size[0] if self.size[0] == self.size[1] else list(self.size),
            "fit": self.fit_mode,
            "decoding": DECODING_VERSION,
        }

    def sample_keys(self) -> list[list[Any]]:
        """Inputs of each record: image, caption and mask by content, and how they are fitted."""
        fitted = [DECODING_VERSION, *self.size, self.fit_mode]
        return [[*fitted, e.sha256, e.caption, e.mask_sha256] for e in self._entries_of_split]

    def captions(self) -> list[tuple[str, str]]:
        """The path of each image, and its caption."""
        return [(e.path, e.caption) for e in self._entries_of_split]

    def check(self) -> None:
        """Decode every image and mask once, so that a damaged one is named before work on the
        others is spent.
        """
        bad = []
        for entry in track(
            self._entries_of_split, f"{self.name}/{self.split}: check", len(self), "image"
        ):
            try:
                self._listing.require_decodable(entry)
            except ImageError as error:
                bad.append(printable(f"{Path(error.where).relative_to(self.root)}: {error.what}"))
        self._listing.validated.save()
        if bad:
            raise self._listing.unusable(bad)
        masks = [e.mask_sha256 for e in self._entries_of_split if e.mask_sha256]
        if self.split != "validation" and masks and not any(self._listing.marks(m) for m in masks):
            raise nothing_marked(len(masks), str(self.root))

    def _chosen(self, entries: list[Entry]) -> list[Entry]:
        """The split's entries."""
        if self.split == "all":
            return entries
        validation = held_out((e.sha256 for e in entries), self.validation_fraction)
        chosen = [e for e in entries if (e.sha256 in validation) == (self.split == "validation")]
        if not chosen:
            cure = f"add images (two different ones at least), {BOTH_ALL.format(self.name)}"
            raise DataError(
                f"no image is left for the split {self.split!r}", where=str(self.root), cure=cure
            )
        return chosen
