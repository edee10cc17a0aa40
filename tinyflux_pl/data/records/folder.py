"""Images in a folder with their captions beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core.errors import CaptionError, ConfigError, DataError, ImageError
from tinyflux_pl.core.files import contained_join
from tinyflux_pl.core.protocols import Record
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
from tinyflux_pl.data.records.json_lines import read_captions

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MASK_SUFFIX = ".mask.png"
SPLITS = ("train", "validation", "all")


@dataclass(frozen=True)
class _Entry:
    """One image that was found: path relative to the root, hash of its bytes, caption, hash of its mask."""

    path: str
    sha256: str
    caption: str
    mask_sha256: str = ""


class Folder:
    """Records of the images under `root`, in the order of their paths; names with a leading dot are left out.

    Captions come from `caption_file` (default: metadata.jsonl or metadata.json where there is one),
    else from `name.txt` beside `name.png`. `name.mask.png` is a mask; either all images have one or none.
    The split is drawn from the images' bytes, so that copies of one image never part.
    Raises CaptionError, ImageError (naming up to ten files, with the count) or UntrustedFile.
    """

    name = "folder"

    def __init__(
        self,
        root: str | Path,
        size: int = 64,
        fit_mode: str = "crop",
        split: str = "train",
        validation_fraction: float = 0.05,
        caption_file: str | None = None,
        allow_missing_captions: bool = False,
        skip_bad: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.root, self.size, self.fit_mode, self.split = Path(root), size, fit_mode, split
        self.validation_fraction, self.skip_bad, self.max_pixels = validation_fraction, skip_bad, max_pixels
        self.image_shape = (size, size, 3)
        if split not in SPLITS or fit_mode not in ("crop", "pad") or not 0 <= validation_fraction < 1 or size < 1:
            what = f"split={split}, fit_mode={fit_mode}, validation_fraction={validation_fraction}, size={size}"
            raise ConfigError(
                what, where="data", cure=f"split one of {SPLITS}, fit_mode crop or pad, fraction in [0, 1)"
            )
        if not self.root.is_dir():
            raise DataError("no such folder", where=str(self.root), cure="set data.root to the folder of images")
        self.skipped: list[str] = []
        entries = self._entries(self._captions(caption_file))
        self._entries_of_split = self._chosen(entries)
        without = [e.path for e in entries if not e.caption]
        if without and not allow_missing_captions:
            cure = "write them, or train these without a caption: data.allow_missing_captions=true"
            raise CaptionError(f"{_listed(without)} without a caption", where=str(self.root), cure=cure)
        masked = [e.path for e in entries if e.mask_sha256]
        if masked and len(masked) < len(entries):
            bare = [e.path for e in entries if not e.mask_sha256]
            raise DataError(
                f"{_listed(bare)} without a mask while others have one", where=str(self.root), cure="add them"
            )

    def __len__(self) -> int:
        return len(self._entries_of_split)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        entry = self._entries_of_split[index]
        content = self._read(entry.path, entry.sha256)
        pixels = decode(content, max_pixels=self.max_pixels, name=str(self.root / entry.path))
        mask = None
        if entry.mask_sha256:
            mask_path = _mask_path(entry.path)
            content, name = self._read(mask_path, entry.mask_sha256), str(self.root / mask_path)
            mask = decode_mask(content, max_pixels=self.max_pixels, name=name)
            if mask.shape != pixels.shape[:2]:
                raise ImageError(f"mask {mask.shape}, image {pixels.shape[:2]}", where=str(self.root / mask_path))
            mask = fit_mask(mask, self.size, self.fit_mode)
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
            "size": self.size,
            "fit": self.fit_mode,
            "decoding": DECODING_VERSION,
        }

    def prompts(self, count: int, split: str = "", seed: int = 0) -> list[str]:
        """The first `count` captions that are not empty, in the order of the paths."""
        return [e.caption for e in self._entries_of_split if e.caption][:count]

    def _read(self, path: str, expected: str) -> bytes:
        content = contained_join(self.root, path).read_bytes()
        if hashlib.sha256(content).hexdigest() != expected:
            raise DataError("the file changed after it was listed", where=str(self.root / path), cure="start again")
        return content

    def _captions(self, caption_file: str | None) -> dict[str, str] | None:
        if caption_file is not None:
            path = contained_join(self.root, caption_file)
            if not path.is_file():
                raise CaptionError("no such file of captions", where=str(path), cure="correct data.caption_file")
        else:
            path = next((p for n in ("metadata.jsonl", "metadata.json") if (p := self.root / n).is_file()), None)
        if path is None:
            return None
        captions = {}
        for file, caption in read_captions(path).items():
            image = contained_join(self.root, file)
            if not image.is_file():
                raise DataError(
                    f"{path.name} names {file}, which is not there", where=str(path), cure="correct the row"
                )
            captions[image.relative_to(self.root.resolve()).as_posix()] = caption
        return captions

    def _entries(self, captions: dict[str, str] | None) -> list[_Entry]:
        entries, bad = [], []
        for relative in _images(self.root):
            path = contained_join(self.root, relative)
            try:
                content = content_of(path, relative)
                # a file that may be skipped is decoded whole now: the count must not change later
                (decode if self.skip_bad else inspect)(
                    content, max_pixels=self.max_pixels, name=str(self.root / relative)
                )
            except ImageError as error:
                bad.append(f"{relative}: {error.what}")
                continue
            text = Path(relative).with_suffix(".txt").as_posix()
            caption = _text(contained_join(self.root, text)) if captions is None else captions.get(relative, "")
            mask = contained_join(self.root, _mask_path(relative))
            mask_hash = hashlib.sha256(mask.read_bytes()).hexdigest() if mask.is_file() else ""
            entries.append(_Entry(relative, hashlib.sha256(content).hexdigest(), caption.strip(), mask_hash))
        if bad and not self.skip_bad:
            cure = "replace or remove them, or leave them out: data.skip_bad=true"
            raise ImageError(f"{_listed(bad)} unusable", where=str(self.root), cure=cure)
        self.skipped = bad
        if not entries:
            what = f"no usable image ({', '.join(SUFFIXES)})"
            raise DataError(what, where=str(self.root), cure="set data.root to the folder of images")
        return entries

    def _chosen(self, entries: list[_Entry]) -> list[_Entry]:
        """The split's entries: a content is validation where its hash, as a number in [0, 1), is small."""
        hashes = sorted({e.sha256 for e in entries})
        held = {h for h in hashes if int(h[:16], 16) / 2**64 < self.validation_fraction}
        if self.validation_fraction > 0 and len(hashes) > 1:
            held = (held or set(hashes[:1])) - ({hashes[-1]} if len(held) == len(hashes) else set())
        else:
            held = set()
        if self.split == "all":
            return entries
        chosen = [e for e in entries if (e.sha256 in held) == (self.split == "validation")]
        if not chosen:
            cure = "add images (two different ones at least) or set data.validation_fraction above 0"
            raise DataError(f"no image is left for the split {self.split!r}", where=str(self.root), cure=cure)
        return chosen


def _images(root: Path) -> list[str]:
    found = (p.relative_to(root) for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and not p.is_dir())
    shown = (p.as_posix() for p in found if not any(part.startswith(".") for part in p.parts))
    return sorted(name for name in shown if not name.lower().endswith(MASK_SUFFIX))


def _mask_path(image: str) -> str:
    return Path(image).with_suffix(MASK_SUFFIX).as_posix()


def _text(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CaptionError("not UTF-8 text", where=str(path), cure="save it as UTF-8") from error


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return f"{len(names)} file{'s' if len(names) != 1 else ''} ({shown})"
