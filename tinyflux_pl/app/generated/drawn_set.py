"""A folder of drawn pictures with a hash of each, complete or still to be filled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.core import files
from tinyflux_pl.core.rank import is_rank_zero


@dataclass(frozen=True)
class DrawnSet:
    """`count` pictures KIND_00000.png ...; KIND.json, written last, holds their hashes."""

    folder: Path
    kind: str
    count: int
    captioned: bool

    def picture(self, index: int) -> Path:
        """Path of a picture."""
        return self.folder / f"{self.kind}_{index:05d}.png"

    def write_caption(self, index: int, text: str) -> None:
        """Write a picture's caption next to it."""
        files.write_bytes(self.picture(index).with_suffix(".txt"), text.encode())

    def has(self, index: int) -> bool:
        """True if the picture exists, with its caption."""
        picture = self.picture(index)
        has_caption = not self.captioned or picture.with_suffix(".txt").is_file()
        return picture.is_file() and has_caption

    def complete(self, content: dict[str, Any]) -> None:
        """Record that all files exist; `content` is the data that determines them."""
        hashes = {file.name: files.sha256(file) for file in self._files()}
        files.write_json(self._mark, {"content": content, "files": hashes})

    def is_complete(self) -> bool:
        """True if every file is unchanged since it was written; changed ones are drawn again."""
        if not self._mark.is_file():
            return False
        hashes = files.read_object(self._mark).get("files", {})
        broken = [
            self.folder / name
            for name, expected in hashes.items()
            if not (self.folder / name).is_file() or files.sha256(self.folder / name) != expected
        ]
        if broken and is_rank_zero():
            self._mark.unlink()
            for file in broken:
                file.unlink(missing_ok=True)
        return not broken

    @property
    def _mark(self) -> Path:
        return self.folder / f"{self.kind}.json"

    def _files(self) -> list[Path]:
        pictures = [self.picture(index) for index in range(self.count)]
        captions = [picture.with_suffix(".txt") for picture in pictures]
        return [*pictures, *(captions if self.captioned else ())]
