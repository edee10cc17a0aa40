"""Pictures of a folder with their captions and masks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core.errors import CaptionError, ConfigError, DataError, ImageError
from tinyflux_pl.core.printable import printable
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.record import Record
from tinyflux_pl.core.size_conditioning import SIZE_IDS, size_ids
from tinyflux_pl.data.images.aspect_buckets import AspectBuckets, Frame
from tinyflux_pl.data.images.decode import DECODING_VERSION, MAX_PIXELS
from tinyflux_pl.data.images.fit import fit, fit_mask
from tinyflux_pl.data.images.mask_coverage import nothing_marked
from tinyflux_pl.data.records.caption_rules import CaptionRules
from tinyflux_pl.data.records.content_split import BOTH_ALL, held_out
from tinyflux_pl.data.records.dataset_files import MASK_SUFFIX
from tinyflux_pl.data.records.draw_rates import DrawRates
from tinyflux_pl.data.records.frame_order import by_frame, segments_of
from tinyflux_pl.data.records.listing import Entry, ListingOptions, listed
from tinyflux_pl.data.records.listings import listing_of
from tinyflux_pl.data.records.record_source import RecordSource

SPLITS = ("train", "validation", "all")


class Folder(RecordSource):
    """Records of the images under `root`, in the order of their frames and paths.

    Names with a leading dot are left out.

    `size` is a side, or height and width. Captions come from `caption_file` (default: a metadata
    table where there is one), else from `name.txt` or `name.caption` beside `name.png`; `captions`
    are the keys of CaptionRules, `buckets` those of AspectBuckets, `folders` maps a folder below
    `root` to its repeats and weight (DrawRates). `name.mask.png` is a mask; either all images have
    one or none. The split is drawn from the images' bytes, so that copies of one image stay
    together. `decoded` is a file that records which images decode: only new ones are checked at the
    next start. Raises CaptionError, ImageError (naming up to ten files, with the count) or
    UntrustedFile.
    """

    name = "folder"
    reads_files = True

    def __init__(
        self,
        root: str | Path | None,
        size: int | tuple[int, int] = 64,
        fit_mode: str = "crop",
        split: str = "train",
        validation_fraction: float = 0.05,
        caption_file: str | None = None,
        allow_missing_captions: bool = False,
        skip_bad: bool = False,
        max_pixels: int = MAX_PIXELS,
        decoded: str | None = None,
        captions: dict[str, Any] | None = None,
        buckets: dict[str, Any] | None = None,
        folders: dict[str, Any] | None = None,
    ) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        if root is None:
            cure = "name the folder of pictures: data.root=FOLDER"
            raise ConfigError("no folder of pictures", where="data.root", cure=cure)
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
        self._rules = CaptionRules.of(captions)
        self._buckets = AspectBuckets.of(self.size, buckets)
        self._rates = DrawRates.of(folders)
        sized = self._buckets is not None
        options = ListingOptions(caption_file, skip_bad, max_pixels, decoded, self._rules, sized)
        self._listing = listing_of(self.root, options)
        entries = self._listing.entries
        # of no split, and counted once
        self.skipped = [] if split == "validation" else self._listing.skipped
        self.findings = self._listing.findings
        self.kinds = Counter(os.path.splitext(e.path)[1].lower() for e in entries)
        self._rates.require_matches([e.path for e in entries], str(self.root))
        self._require_captions(entries)
        self._require_masks(entries)
        self._entries_of_split, self._frames = self._framed(self._chosen(entries))
        self._texts = [self._rules.variants(e.captions) or ("",) for e in self._entries_of_split]
        self.variants = max(map(len, self._texts))
        self._listing.save()

    def __len__(self) -> int:
        return len(self._entries_of_split)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        entry, frame, texts = (
            self._entries_of_split[index],
            self._frames[index],
            self._texts[index],
        )
        pixels, mask = self._listing.pixels(entry)
        mask = None if mask is None else fit_mask(mask, frame, self.fit_mode)
        image = fit(pixels, frame, self.fit_mode)
        identity = fingerprints.sample_id(image.tobytes(), texts[0])
        original = list(pixels.shape[:2])
        attributes = {
            "original_size": original,
            SIZE_IDS: size_ids(original, frame, self.fit_mode),
        }
        return Record(
            image, texts[0], identity, mask, entry.path, attributes, other_captions=texts[1:]
        )

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that determines pixels, captions and order; no root, times or file names."""
        content = [
            [e.sha256, texts[0], e.mask_sha256, *self._varying(i)]
            for i, (e, texts) in enumerate(zip(self._entries_of_split, self._texts, strict=True))
        ]
        several = {"variants": self.variants} if self.variants > 1 else {}
        framed = {"frames": self.segments} if self._buckets is not None else {}
        return {
            "name": self.name,
            "content": fingerprints.hash_json(content),
            "count": len(self),
            "split": self.split,
            "size": self.size[0] if self.size[0] == self.size[1] else list(self.size),
            "fit": self.fit_mode,
            "decoding": DECODING_VERSION,
            **several,
            **framed,
        }

    def sample_keys(self) -> list[list[Any]]:
        """Content hashes of each record's image, captions and mask, and how they are fitted."""
        return [
            [
                *(DECODING_VERSION, *self._frames[i], self.fit_mode),
                *(e.sha256, self._texts[i][0], e.mask_sha256, *self._varying(i)),
            ]
            for i, e in enumerate(self._entries_of_split)
        ]

    def captions(self) -> list[tuple[str, str]]:
        """The path of each image with each of its captions."""
        named = zip(self._entries_of_split, self._texts, strict=True)
        return [(e.path, text) for e, texts in named for text in texts]

    def paths(self) -> list[str]:
        """The path of each image."""
        return [e.path for e in self._entries_of_split]

    @property
    def segments(self) -> Sequence[tuple[Frame | None, int]]:
        """Frames in the order of the records, with the number of records of each."""
        if self._buckets is None:
            return super().segments
        return segments_of(self._frames)

    def draw_rates(self) -> tuple[list[int], list[float]] | None:
        """Repeats and weight of each record; None where all are 1."""
        return self._rates.of_paths([e.path for e in self._entries_of_split])

    def check(self) -> None:
        """Decode every image and mask once, so that damaged ones are named before other work."""
        bad = []
        for entry in track(
            self._entries_of_split, f"{self.name}/{self.split}: check", len(self), "image"
        ):
            try:
                self._listing.require_decodable(entry)
            except ImageError as error:
                bad.append(printable(f"{Path(error.where).relative_to(self.root)}: {error.what}"))
        self._listing.save()
        if bad:
            raise self._listing.unusable(bad)
        masks = [e.mask_sha256 for e in self._entries_of_split if e.mask_sha256]
        if self.split != "validation" and masks and not any(self._listing.marks(m) for m in masks):
            raise nothing_marked(len(masks), str(self.root))

    def _varying(self, index: int) -> list[Any]:
        """Inputs of a row besides its first caption: all captions, and the width of the row."""
        return [self.variants, *self._texts[index]] if self.variants > 1 else []

    def _require_captions(self, entries: Sequence[Entry]) -> None:
        described = self._listing.table
        without = [e.path for e in entries if not e.caption]
        if without and not self.allow_missing_captions:
            how = f"add them to {described}" if described else "write NAME.txt beside each"
            cure = f"{how}, or train these without a caption: data.allow_missing_captions=true"
            cure += self._listing.hint()
            raise CaptionError(
                f"{listed(without)} without a caption", where=str(self.root), cure=cure
            )

    def _require_masks(self, entries: Sequence[Entry]) -> None:
        bare = [e.path for e in entries if not e.mask_sha256]
        if bare and len(bare) < len(entries):
            cure = f"add NAME{MASK_SUFFIX} beside them, or remove all masks"
            raise DataError(
                f"{listed(bare)} without a mask while others have one",
                where=str(self.root),
                cure=cure,
            )

    def _framed(self, entries: list[Entry]) -> tuple[list[Entry], list[Frame]]:
        """The entries with their frames, sorted by frame."""
        if self._buckets is None:
            return entries, [self.size] * len(entries)
        return by_frame(entries, (entry.size for entry in entries), self._buckets)

    def _chosen(self, entries: list[Entry]) -> list[Entry]:
        """The entries of the split."""
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
