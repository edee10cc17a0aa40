"""Pairs of pictures: a target with references (Kontext) or a mask (Fill), and a caption."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core.errors import CaptionError, ConfigError, DataError
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.record import Record
from tinyflux_pl.core.size_conditioning import SIZE_IDS, size_ids
from tinyflux_pl.data.images.aspect_buckets import AspectBuckets, Frame
from tinyflux_pl.data.images.decode import DECODING_VERSION, MAX_PIXELS
from tinyflux_pl.data.images.fit import fit, fit_mask
from tinyflux_pl.data.images.mask_coverage import nothing_marked
from tinyflux_pl.data.records.caption_rules import CaptionRules
from tinyflux_pl.data.records.content_split import BOTH_ALL, held_out
from tinyflux_pl.data.records.draw_rates import DrawRates
from tinyflux_pl.data.records.frame_order import by_frame, segments_of
from tinyflux_pl.data.records.image_pair_rows import PairRow, mixed_kinds, read_rows
from tinyflux_pl.data.records.pair_files import PairFiles
from tinyflux_pl.data.records.record_source import RecordSource

SPLITS = ("train", "validation", "all")


class PairedImages(RecordSource):
    """Records of the image pairs of a folder (records.image_pair_rows), scaled and cropped.

    Targets have `size`, references `reference_size` (None: that of their target; Kontext's own are
    resize_rules.PREFERRED): a side, or height and width. With `buckets` (the keys of AspectBuckets)
    a target and its inpaint mask have the frame that suits the target, and records are in the order
    of their frames. A record's `references` are pixels, its `inpaint_mask` is (H, W) bool, True
    where to paint. The split is drawn from the targets' bytes. Raises DataError for a folder or
    files that are not read, CaptionError and ImageError.
    """

    name = "pairs"
    reads_files = True

    def __init__(
        self,
        root: str | Path,
        size: int | tuple[int, int] = 64,
        reference_size: int | tuple[int, int] | None = None,
        split: str = "train",
        validation_fraction: float = 0.05,
        allow_missing_captions: bool = False,
        max_pixels: int = MAX_PIXELS,
        captions: dict[str, Any] | None = None,
        buckets: dict[str, Any] | None = None,
        folders: dict[str, Any] | None = None,
    ) -> None:
        self.root = Path(root).expanduser()
        self.split = split
        self.max_pixels = max_pixels
        self.size = _sides(size)
        self.reference_size = None if reference_size is None else _sides(reference_size)
        self._buckets = AspectBuckets.of(self.size, buckets)
        self.allow_missing_captions = allow_missing_captions
        self.image_shape = (*self.size, 3)
        if (
            split not in SPLITS
            or not 0 <= validation_fraction < 1
            or min(*self.size, *(self.reference_size or ())) < 1
        ):
            what = (
                f"split={split}, validation_fraction={validation_fraction}, size={size}, "
                f"{reference_size}"
            )
            cure = f"split one of {SPLITS}, fraction in [0, 1), sizes in pixels or [height, width]"
            raise ConfigError(what, where="data", cure=cure)
        if not self.root.is_dir():
            raise DataError(
                "no such folder", where=str(self.root), cure="set data.root to the folder of pairs"
            )
        rules, self._rates = CaptionRules.of(captions), DrawRates.of(folders)
        rows, self.findings = read_rows(self.root)
        self._rates.require_matches([row.target for row in rows], str(self.root))
        self._mixed = mixed_kinds(rows, self.root)
        bare = [row.target for row in rows if not row.caption]
        if bare and not allow_missing_captions:
            cure = (
                "write what changes from reference to target, or data.allow_missing_captions=true"
            )
            raise CaptionError(
                f"{len(bare)} pairs without a caption ({bare[0]} ...)",
                where=str(self.root),
                cure=cure,
            )
        listed = track(rows, f"{self.name}/{split}: list", len(rows), "pair", leave=False)
        self._files = PairFiles(self.root, (path for r in listed for path in r.files), max_pixels)
        hashes = self._files.hashes
        validation = held_out((hashes[row.target] for row in rows), validation_fraction)
        chosen = [
            r
            for r in rows
            if split == "all" or (hashes[r.target] in validation) == (split == "validation")
        ]
        if not chosen:
            cure = f"add pairs (two different targets at least), {BOTH_ALL.format(self.name)}"
            raise DataError(
                f"no pair is left for the split {split!r}", where=str(self.root), cure=cure
            )
        self.rows, self._frames, self.skipped = *self._framed(chosen), []
        self._texts = [_texts(row, rules) for row in self.rows]
        self.variants = max(map(len, self._texts))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        self.require_one_kind()
        row = self.rows[index]
        target, frame = self._files.pixels(row.target), self._frames[index]
        image = fit(target, frame, "crop")
        fitted_size = self.reference_size or frame
        references = tuple(
            fit(self._files.pixels(path), fitted_size, "crop") for path in row.references
        )
        inpaint_mask = None
        if row.mask:
            inpaint_mask = (
                fit_mask(self._files.mask(row.mask, target.shape[:2]), frame, "crop") >= 0.5
            )
        seen = b"".join(
            np.ascontiguousarray(part).tobytes()
            for part in (image, *references, *([inpaint_mask] if row.mask else []))
        )
        first, *further = self._texts[index]
        identity = fingerprints.sample_id(seen, first)
        original = list(target.shape[:2])
        sizes = {"original_size": original, SIZE_IDS: size_ids(original, frame, "crop")}
        return Record(
            image,
            first,
            identity,
            None,
            row.target,
            sizes,
            references,
            inpaint_mask,
            other_captions=tuple(further),
        )

    def fingerprint(self) -> dict[str, Any]:
        """Inputs of the pixels, captions and their order: contents, sizes, decoding."""
        sizes = [list(self.size), list(self.reference_size or self.size)]
        framed = {"frames": self.segments} if self._buckets is not None else {}
        return {
            "name": self.name,
            "content": fingerprints.hash_json(self.sample_keys()),
            "count": len(self),
            "sizes": sizes,
            **framed,
        }

    def sample_keys(self) -> list[list[Any]]:
        """Inputs of each record, by content."""
        return [
            [
                *(DECODING_VERSION, *frame, *(self.reference_size or frame)),
                *(*self._captions_key(texts), *(self._files.hashes[path] for path in row.files)),
            ]
            for row, texts, frame in zip(self.rows, self._texts, self._frames, strict=True)
        ]

    def captions(self) -> list[tuple[str, str]]:
        """The path of each target, and its caption."""
        named = zip(self.rows, self._texts, strict=True)
        return [(row.target, text) for row, texts in named for text in texts]

    def paths(self) -> list[str]:
        """The path of each target."""
        return [row.target for row in self.rows]

    @property
    def segments(self) -> Sequence[tuple[tuple[int, int] | None, int]]:
        """Frames in the order of the records, with the number of records of each."""
        return super().segments if self._buckets is None else segments_of(self._frames)

    def draw_rates(self) -> tuple[list[int], list[float]] | None:
        """Repeats and weight of each pair, by the folder of its target; None where all are 1."""
        return self._rates.of_paths([row.target for row in self.rows])

    def check(self) -> None:
        """Read every pair once, so that damaged ones are reported before any work."""
        self.require_one_kind()
        order = track(range(len(self)), f"{self.name}/{self.split}: check", len(self), "pair")
        masks = [self[index].inpaint_mask for index in order]
        if self.split != "validation" and not any(mask is None or mask.any() for mask in masks):
            raise nothing_marked(len(masks), str(self.root))

    def require_one_kind(self) -> None:
        """Raise DataError for pairs with different numbers of references, or some with a mask."""
        if self._mixed is not None:
            raise self._mixed

    def picture_overrides(self, caption: str) -> list[str]:
        """generate.py overrides: images of the record with this caption, else the first's."""
        named = zip(self.rows, self._texts, strict=True)
        row = next((row for row, texts in named if caption in texts), self.rows[0])
        if row.mask:
            return [f"image={self.root / row.target}", f"mask={self.root / row.mask}"]
        references = [str(self.root / path) for path in row.references]
        joined = references[0] if len(references) == 1 else f"[{','.join(references)}]"
        return [f"reference={joined}"]

    def _framed(self, rows: list[PairRow]) -> tuple[list[PairRow], list[Frame]]:
        """The rows with the frame of each target, in the order of the frames."""
        if self._buckets is None:
            return rows, [self.size] * len(rows)
        return by_frame(rows, (self._files.size(row.target) for row in rows), self._buckets)

    def _captions_key(self, texts: Sequence[str]) -> list[Any]:
        """The caption, or where pairs have several the width of a row and all of them."""
        return [texts[0]] if self.variants == 1 else [self.variants, *texts]


def _texts(row: PairRow, rules: CaptionRules) -> tuple[str, ...]:
    written = (rules.written(caption) for caption in (row.caption, *row.other_captions))
    return rules.variants([*chain.from_iterable(written)]) or ("",)


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
