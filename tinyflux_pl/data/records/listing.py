"""A listing of pictures with captions and masks, made once for all splits, in any storage form."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyflux_pl.core.errors import DataError, ImageError
from tinyflux_pl.core.printable import printable
from tinyflux_pl.core.progress import track
from tinyflux_pl.data.images.decode import decode, decode_mask, inspect
from tinyflux_pl.data.images.decode_log import ValidatedImages
from tinyflux_pl.data.images.formats import suffixes
from tinyflux_pl.data.records.caption_rules import CaptionRules
from tinyflux_pl.data.records.finding import Finding

MARKS = "marks something"  # what is remembered of a mask
HEADER = "header"  # and of a file whose header is that of an image
AS_WRITTEN = CaptionRules()
UNREAD = ("needs an extra", "kind not read", "table not read", "caption alone", "column not read")


@dataclass(frozen=True)
class Entry:
    """One picture: its name, the sha256 of its bytes, and its captions as written.

    `mask` and `mask_sha256` are "" without a mask; `size` is (height, width) if sizes were asked
    for.
    """

    path: str
    sha256: str
    captions: tuple[str, ...] = ()
    mask: str = ""
    mask_sha256: str = ""
    size: tuple[int, int] = (0, 0)

    @property
    def caption(self) -> str:
        """The first caption; "" without one."""
        return self.captions[0] if self.captions else ""


@dataclass(frozen=True)
class ListingOptions:
    """Settings of a listing beside its folder.

    `decoded` is a file that records which pictures decode; `sized` asks for the size of each.
    """

    caption_file: str | None
    skip_bad: bool
    max_pixels: int
    decoded: str | None
    captions: CaptionRules = AS_WRITTEN
    sized: bool = False


class Listing(ABC):
    """`entries` of all usable pictures in a stable order, what was `skipped`, and `findings`.

    A subclass reads its form in `_list`, which names pictures, captions and masks, and returns the
    bytes of a name in `content`. `table` describes where captions are written; None: beside the
    pictures. Raises CaptionError, DataError, ImageError (naming up to ten files, with the count),
    UntrustedFile.
    """

    table: str | None = None

    def __init__(self, root: Path, options: ListingOptions) -> None:
        self.root, self.options = root, options
        self.skip_bad, self.max_pixels = options.skip_bad, options.max_pixels
        self.validated = ValidatedImages(options.decoded, options.max_pixels)
        self.findings: list[Finding] = []
        self.skipped: list[str] = []
        self.entries = self._list()

    @abstractmethod
    def _list(self) -> list[Entry]: ...

    @abstractmethod
    def content(self, path: str) -> bytes:
        """The bytes of a picture or a mask; ImageError if they cannot be read."""

    def save(self) -> None:
        """Store what makes the next start faster, where there is something new."""
        self.validated.save()

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
        content = self._unchanged(entry.path, entry.sha256)
        pixels = decode(content, max_pixels=self.max_pixels, name=str(self.root / entry.path))
        if not entry.mask_sha256:
            return pixels, None
        content, name = self._unchanged(entry.mask, entry.mask_sha256), str(self.root / entry.mask)
        mask = decode_mask(content, max_pixels=self.max_pixels, name=name)
        if mask.shape != pixels.shape[:2]:
            sizes = " and ".join(
                f"{width} x {height}" for height, width in (mask.shape, pixels.shape[:2])
            )
            what = f"the mask and its image are of different sizes, {sizes}"
            raise ImageError(what, where=name, cure="make the mask as large as the image")
        return pixels, mask

    def unusable(self, bad: list[str]) -> ImageError:
        """The error that names unusable pictures."""
        cure = "replace or remove them, or leave out unreadable images: data.skip_bad=true"
        if any(re.search(r"more than [\d,]+( pixels)?$", line) for line in bad):
            cure += "; larger pictures are read with a higher data.max_pixels"
        return ImageError(f"{listed(bad)} unusable", where=str(self.root), cure=cure)

    def hint(self) -> str:
        """A hint on files that are not read, for a message about missing ones."""
        lines = (f"{f.kind}: {f.line()}" for f in self.findings if f.kind in UNREAD)
        return printable("".join(f"; {line}" for line in lines))

    def _collect(
        self, items: Sequence, entry_of: Callable[..., Entry], bad: Iterable[str] = ()
    ) -> list[Entry]:
        """The entries of `items`; with skip_bad unusable ones are `skipped`, else ImageError."""
        entries, unusable = [], list(bad)
        for item in track(items, "folder: list", len(items), "image", leave=False):
            try:
                entry = entry_of(item)
                if self.skip_bad:  # decoded whole now: the count must not change later
                    self.require_decodable(entry)
            except ImageError as error:
                unusable.append(printable(f"{self._relative(error.where)}: {error.what}"))
            else:
                entries.append(entry)
        # decoding took its time; a header alone is no reason to write where a run is refused
        if self.skip_bad:
            self.validated.save()
        if unusable and not self.skip_bad:
            raise self.unusable(unusable)
        self.skipped = unusable
        if not entries:
            left_out = f"; {listed(unusable)} left out" if unusable else ""
            what = f"no usable image ({', '.join(suffixes())}){left_out}"
            cure = f"set data.root to the folder of images{self.hint()}"
            raise DataError(what, where=str(self.root), cure=cure)
        return entries

    def _digest(self, path: str) -> tuple[str, tuple[int, int]]:
        """The sha256 and the (height, width) of a picture; ImageError naming one that is none."""
        name, content = f"{self.root}/{path}", self.content(path)
        sha256 = hashlib.sha256(content).hexdigest()
        size = (0, 0)
        if self.options.sized or not self.validated.holds(sha256, HEADER):
            width, height = inspect(content, max_pixels=self.max_pixels, name=name)
            self.validated.add(sha256, HEADER)
            size = (height, width)
        return sha256, size

    def _unchanged(self, path: str, expected: str) -> bytes:
        content = self.content(path)
        if hashlib.sha256(content).hexdigest() != expected:
            what, where = "the file changed after it was listed", str(self.root / path)
            raise DataError(what, where=where, cure="start again")
        return content

    def _relative(self, where: str) -> str:
        path = Path(where)
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else where


def listed(names: Sequence[str]) -> str:
    """The number of files, and the first ten."""
    first = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return f"{len(names)} file{'s' if len(names) != 1 else ''} ({first})"
