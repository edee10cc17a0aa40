"""The images of a folder with their captions and masks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from tinyflux_pl.core.errors import CaptionError, DataError
from tinyflux_pl.core.printable import printable
from tinyflux_pl.data.images.decode import content_of
from tinyflux_pl.data.images.decode_log import ValidatedImages
from tinyflux_pl.data.records import unused_files
from tinyflux_pl.data.records.caption_tables import captions_by_image
from tinyflux_pl.data.records.dataset_files import (
    MASK_SUFFIX,
    MAX_CAPTION_BYTES,
    Scan,
    inside,
    mask_of,
    scanned,
    text_of,
)
from tinyflux_pl.data.records.file_index import FileIndex, identity
from tinyflux_pl.data.records.finding import findings_of
from tinyflux_pl.data.records.listing import Entry, Listing, ListingOptions, listed
from tinyflux_pl.data.records.spelling import spelled_otherwise
from tinyflux_pl.data.records.table_rows import table_in

INDEX_SUFFIX = ".files.json"  # beside the log of decoded images
TEXT_SUFFIXES = (".txt", ".caption")
COLUMN_CURE = (
    "nothing: pictures are named by file_name, image or file, captions by text, caption or prompt"
)


class FolderListing(Listing):
    """Image files in the order of their paths.

    Captions come from a table, else from NAME.txt or NAME.caption beside NAME.png.
    """

    def __init__(self, root: Path, options: ListingOptions, scan: Scan | None = None) -> None:
        self._base = root.resolve()
        self._scan = scan
        log = None if options.decoded is None else Path(options.decoded).with_suffix(INDEX_SUFFIX)
        reader = ValidatedImages(None, options.max_pixels).decoder
        self._index = FileIndex(log, self._base, reader)
        super().__init__(root, options)

    def content(self, path: str) -> bytes:
        return content_of(self._path_of(path), f"{self.root}/{path}")

    def save(self) -> None:
        """Also the index of files."""
        super().save()
        self._index.save()

    def _list(self) -> list[Entry]:
        described = table_in(self.root, self.options.caption_file)
        several = self.options.captions.several
        table = None if described is None else captions_by_image(self.root, described, several)
        captions = None if table is None else table.captions
        scan = scanned(self.root) if self._scan is None else self._scan
        images, masks = scan.images, set(scan.masks)
        if alone := sorted(masks - set(map(mask_of, images))):
            cure = f"call the mask of NAME.png NAME{MASK_SUFFIX}, or remove it"
            if respelled := spelled_otherwise(alone, map(mask_of, images)):
                cure += f"; {respelled[0]}: the same letters in another case or composition"
            what = f"{listed(alone)}: masks that no image has"
            raise DataError(what, where=str(self.root), cure=cure)
        if described is not None:
            self.table = described.relative_to(self._base).as_posix()
        texts = _text_files(images, scan.other_files)
        self.findings = unused_files.of_folder(
            images, scan.other_files, self.table, captions, texts, self._texts
        )
        if table is not None:
            self.findings += findings_of("column not read", table.unread, COLUMN_CURE)
        strange = sorted(set(captions or ()) - set(images))
        bad = [printable(f"{name}: has a caption, but is not read as an image") for name in strange]

        def entry(image: str) -> Entry:
            if captions is not None:
                written = tuple(c.strip() for c in captions.get(image, ()) if c.strip())
            else:
                written = self._written(texts.get(image, ()), image)
            mask = mask_of(image) if mask_of(image) in masks else ""
            sha256, size = self._digest(image)
            return Entry(image, sha256, written, mask, self._digest(mask)[0] if mask else "", size)

        return self._collect(images, entry, bad)

    def _written(self, files: tuple[str, ...], image: str) -> tuple[str, ...]:
        """The captions in the text files of an image, which must agree; CaptionError."""
        read = list(dict.fromkeys(self._texts(file) for file in files))
        if len(read) > 1:
            what = f"{' and '.join(files)} are captions of {image}, and differ"
            cure = "keep one of them; several captions are lines of one file"
            raise CaptionError(what, where=str(self.root), cure=cure)
        return read[0] if read else ()

    def _texts(self, file: str) -> tuple[str, ...]:
        before = identity(f"{self._base}/{file}")
        text = self._index.value(file, before)
        if not isinstance(text, str):
            text = text_of(self._path_of(file), MAX_CAPTION_BYTES)
            self._index.add(file, before, text)
        return self.options.captions.written(text)

    def _digest(self, path: str) -> tuple[str, tuple[int, int]]:
        before = identity(f"{self._base}/{path}")
        match self._index.value(path, before):
            case [str(sha256), int(height), int(width)] if height or not self.options.sized:
                return sha256, (height, width)
        sha256, size = super()._digest(path)
        self._index.add(path, before, [sha256, *size])
        return sha256, size

    def _path_of(self, relative: str) -> str | Path:
        """The path of a file; links are followed only within the folder."""
        path = f"{self._base}/{relative}"  # no Path: of a hundred thousand it takes seconds
        return inside(self.root, relative) if os.path.islink(path) else path


def _text_files(images: list[str], other_files: list[str]) -> Mapping[str, tuple[str, ...]]:
    """Image -> its text files, .txt first."""
    there: dict[str, list[str]] = {}
    for name in other_files:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in TEXT_SUFFIXES:
            there.setdefault(stem + suffix.lower(), []).append(name)
    files_of: dict[str, tuple[str, ...]] = {}
    for image in images:
        stem = os.path.splitext(image)[0]
        names = (there.get(stem + suffix, ()) for suffix in TEXT_SUFFIXES)
        if files := tuple(chain.from_iterable(names)):
            files_of[image] = files
    return files_of
