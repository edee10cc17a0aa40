"""Records with the maps of a control branch: computed from the pictures, or read from files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyflux_pl.core.errors import ConfigError, DataError
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.record import Record
from tinyflux_pl.data.images.canny import CANNY_VERSION, canny_map
from tinyflux_pl.data.images.decode import DECODING_VERSION, content_of, decode
from tinyflux_pl.data.images.fit import fit
from tinyflux_pl.data.records.dataset_files import inside, scanned
from tinyflux_pl.data.records.listing import listed
from tinyflux_pl.data.records.record_source import RecordSource
from tinyflux_pl.data.records.spelling import spelled_otherwise

CANNY = "canny"


class Hinted:
    """Any RecordSource, whose records gain a `hint` (H, W, 3) uint8 of the picture's own size.

    `hint` is canny, or a folder of maps: NAME.png there (or another format) is the map of NAME.jpg
    in the data, of the same size, and is fitted as the picture is. DataError for pictures without a
    map or with several, and for maps of another size.
    """

    def __init__(self, records: RecordSource, hint: str) -> None:
        if not records.has_pictures:
            what = f"data={records.name} has no pictures, and so no maps of them"
            raise ConfigError(what, where="data.hint", cure="leave data.hint= out")
        self.records = records
        self._maps = None if hint == CANNY else _maps_of(records, Path(hint).expanduser())

    def __getattr__(self, name: str) -> Any:
        """Every other attribute of the records."""
        if name.startswith("__") or name == "records":  # asked for by copies, before there are any
            raise AttributeError(name)
        return getattr(self.records, name)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Record:
        record = self.records[index]
        if record.image.dtype != np.uint8:
            cure = "leave data.hint= out"
            raise ConfigError("sequences have no maps", where="data.hint", cure=cure)
        if self._maps is None:
            return replace(record, hint=canny_map(record.image))
        file = self._maps[index]
        pixels = decode(content_of(file, str(file)), name=str(file))
        _require_same_size(file, pixels, record)
        return replace(record, hint=fit(pixels, record.image.shape[:2], self.records.fit_mode))

    def fingerprint(self) -> dict[str, Any]:
        """The records', and what decides the maps."""
        return {**self.records.fingerprint(), "hint": self._identity(range(len(self)))}

    def sample_keys(self) -> list[Any] | None:
        """Each record's key with that of its map; None where only reading can tell."""
        keys = self.records.sample_keys()
        if keys is None:
            return None
        return [[key, self._identity([index])] for index, key in enumerate(keys)]

    def check(self) -> None:
        """Read every record with its map once, where the maps are given."""
        self.records.check()
        if self._maps is not None:
            for index in track(range(len(self)), f"{self.name}: maps", len(self), "map"):
                self[index]

    def _identity(self, indices: Any) -> list[Any]:
        if self._maps is None:
            return [CANNY, CANNY_VERSION]
        return ["given", DECODING_VERSION, *(_sha256(self._maps[index]) for index in indices)]


def _maps_of(records: RecordSource, root: Path) -> list[Path]:
    """The map of each record, in order."""
    names = records.paths()
    if names is None or not records.reads_files:
        cure = "data.hint=canny, or data in files: data=folder"
        raise ConfigError(
            "pictures made by rule have no names that maps could have", where="data.hint", cure=cure
        )
    if not root.is_dir():
        cure = "canny, or a folder of maps with the pictures' names"
        raise ConfigError("no such folder", where=f"data.hint={root}", cure=cure)
    by_stem: dict[str, list[str]] = {}
    for name in scanned(root).images:
        by_stem.setdefault(os.path.splitext(name)[0], []).append(name)
    stems = [os.path.splitext(name)[0] for name in names]
    cure = "one map a picture, called as the picture is"
    without = [name for name, stem in zip(names, stems, strict=True) if stem not in by_stem]
    if missing := list(dict.fromkeys(without)):
        if respelled := spelled_otherwise((os.path.splitext(name)[0] for name in missing), by_stem):
            cure += f"; {respelled[0]}: the same letters in another case or composition"
        raise DataError(f"{listed(missing)} without a map", where=str(root), cure=cure)
    if several := [name for s in dict.fromkeys(stems) for name in by_stem[s][1:]]:
        raise DataError(f"{listed(several)}: a second map of a name", where=str(root), cure=cure)
    return [inside(root, by_stem[stem][0]) for stem in stems]


def _require_same_size(file: Path, pixels: np.ndarray, record: Record) -> None:
    height, width = record.attributes.get("original_size", record.image.shape[:2])
    if pixels.shape[:2] != (height, width):
        rows, columns = pixels.shape[:2]
        what = f"the map is {columns} x {rows}, its picture {record.source} {width} x {height}"
        cure = "make every map as large as its picture"
        raise DataError(what, where=str(file), cure=cure)


def _sha256(file: Path) -> str:
    return hashlib.sha256(content_of(file, str(file))).hexdigest()
