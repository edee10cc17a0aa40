"""Pairs of pictures: a target with references (Kontext) or a mask (Fill), and a caption."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core.errors import CaptionError, ConfigError, DataError, ImageError
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.protocols import Record
from tinyflux_pl.core.size_conditioning import SIZE_IDS, size_ids
from tinyflux_pl.data.images.decode import (
    DECODING_VERSION,
    MAX_PIXELS,
    content_of,
    decode,
    decode_mask,
)
from tinyflux_pl.data.images.fit import fit, fit_mask
from tinyflux_pl.data.images.mask_coverage import nothing_marked
from tinyflux_pl.data.records.caption_rules import CaptionRules
from tinyflux_pl.data.records.content_split import BOTH_ALL, held_out
from tinyflux_pl.data.records.dataset_files import inside
from tinyflux_pl.data.records.draw_rates import DrawRates
from tinyflux_pl.data.records.image_pair_rows import PairRow, mixed_kinds, read_rows
from tinyflux_pl.data.records.record_source import RecordSource

SPLITS = ("train", "validation", "all")


class PairedImages(RecordSource):
    """Records of the image pairs of a folder (records.image_pair_rows), scaled and cropped.

    Targets have `size`, references `reference_size` (None: the targets'; Kontext's own are
    resize_rules.PREFERRED): a side, or height and width. A record's `references` are pixels, its
    `hole` is (H, W) bool, True where to paint. The split is drawn from the targets' bytes. Raises
    DataError for a folder or files that are not read, CaptionError and ImageError.
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
        folders: dict[str, Any] | None = None,
    ) -> None:
        self.root = Path(root).expanduser()
        self.split = split
        self.max_pixels = max_pixels
        self.size = _sides(size)
        self.reference_size = self.size if reference_size is None else _sides(reference_size)
        self.allow_missing_captions = allow_missing_captions
        self.image_shape = (*self.size, 3)
        if (
            split not in SPLITS
            or not 0 <= validation_fraction < 1
            or min(*self.size, *self.reference_size) < 1
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
        self._hashes = {path: self._hash(path) for row in listed for path in _files(row)}
        validation = held_out((self._hashes[row.target] for row in rows), validation_fraction)
        chosen = [
            r
            for r in rows
            if split == "all" or (self._hashes[r.target] in validation) == (split == "validation")
        ]
        if not chosen:
            cure = f"add pairs (two different targets at least), {BOTH_ALL.format(self.name)}"
            raise DataError(
                f"no pair is left for the split {split!r}", where=str(self.root), cure=cure
            )
        self.rows, self.skipped = chosen, []
        self._texts = [rules.variants(rules.written(row.caption)) or ("",) for row in chosen]
        self.variants = max(map(len, self._texts))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        self.require_one_kind()
        row = self.rows[index]
        target = self._pixels(row.target)
        image = fit(target, self.size, "crop")
        references = tuple(
            fit(self._pixels(path), self.reference_size, "crop") for path in row.references
        )
        hole = None
        if row.mask:
            hole = fit_mask(self._mask(row.mask, target.shape[:2]), self.size, "crop") >= 0.5
        seen = b"".join(
            np.ascontiguousarray(part).tobytes()
            for part in (image, *references, *([hole] if row.mask else []))
        )
        first, *further = self._texts[index]
        identity = fingerprints.sample_id(seen, first)
        original = list(target.shape[:2])
        sizes = {"original_size": original, SIZE_IDS: size_ids(original, self.size, "crop")}
        return Record(
            image,
            first,
            identity,
            None,
            row.target,
            sizes,
            references,
            hole,
            other_captions=tuple(further),
        )

    def fingerprint(self) -> dict[str, Any]:
        """Inputs of the pixels, captions and their order: contents, sizes, decoding."""
        sizes = [list(self.size), list(self.reference_size)]
        return {
            "name": self.name,
            "content": fingerprints.hash_json(self.sample_keys()),
            "count": len(self),
            "sizes": sizes,
        }

    def sample_keys(self) -> list[list[Any]]:
        """Inputs of each record, by content."""
        fitted = [DECODING_VERSION, *self.size, *self.reference_size]
        return [
            [*fitted, *self._captions_key(texts), *(self._hashes[path] for path in _files(row))]
            for row, texts in zip(self.rows, self._texts, strict=True)
        ]

    def captions(self) -> list[tuple[str, str]]:
        """The path of each target, and its caption."""
        named = zip(self.rows, self._texts, strict=True)
        return [(row.target, text) for row, texts in named for text in texts]

    def draw_rates(self) -> tuple[list[int], list[float]] | None:
        """Repeats and weight of each pair, by the folder of its target; None where all are 1."""
        return self._rates.of_paths([row.target for row in self.rows])

    def check(self) -> None:
        """Read every pair once, so that damaged ones are reported before any work."""
        self.require_one_kind()
        order = track(range(len(self)), f"{self.name}/{self.split}: check", len(self), "pair")
        holes = [self[index].hole for index in order]
        if self.split != "validation" and not any(hole is None or hole.any() for hole in holes):
            raise nothing_marked(len(holes), str(self.root))

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

    def _captions_key(self, texts: Sequence[str]) -> list[Any]:
        """The caption, or where pairs have several the width of a row and all of them."""
        return [texts[0]] if self.variants == 1 else [self.variants, *texts]

    def _pixels(self, path: str) -> np.ndarray:
        return decode(self._content(path), max_pixels=self.max_pixels, name=str(self.root / path))

    def _mask(self, path: str, size: tuple[int, ...]) -> np.ndarray:
        """The luminance (h, w) of a mask that lies over a picture of that `size`."""
        name = str(self.root / path)
        mask = decode_mask(self._content(path), max_pixels=self.max_pixels, name=name)
        if mask.shape != size:
            (height, width), (rows, columns) = mask.shape, size
            what = (
                f"the mask and its image are of different sizes, {width} x {height} and {columns} "
                f"x {rows}"
            )
            raise ImageError(what, where=name, cure="make the mask as large as the image")
        return mask

    def _content(self, path: str) -> bytes:
        """A file's bytes, if they are still those that were listed."""
        content = content_of(inside(self.root, path), str(self.root / path))
        if hashlib.sha256(content).hexdigest() != self._hashes[path]:
            raise DataError(
                "the file changed after it was listed",
                where=str(self.root / path),
                cure="start again",
            )
        return content

    def _hash(self, path: str) -> str:
        return hashlib.sha256(
            content_of(inside(self.root, path), str(self.root / path))
        ).hexdigest()


def _files(row: PairRow) -> tuple[str, ...]:
    return (row.target, *row.references, *([row.mask] if row.mask else []))


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
