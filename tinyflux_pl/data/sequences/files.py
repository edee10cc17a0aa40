"""Sequence pairs from .npz and .safetensors files: any tokens to any others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core.errors import ConfigError, DataError
from tinyflux_pl.core.record import Record
from tinyflux_pl.core.sequence_pairs import Pairs, PairShape
from tinyflux_pl.data.records.content_split import held_out
from tinyflux_pl.data.sequences.array_file import SUFFIXES
from tinyflux_pl.data.sequences.pair_file import PairFile
from tinyflux_pl.data.sequences.records import BLOCK, PairRecords, concatenate, select
from tinyflux_pl.data.sequences.verifier import NearestTarget

SPLITS = ("train", "validation", "all")
MAX_TARGETS = 1000  # that an answer is compared with
MAX_GAP = 32  # rows apart that are still read together


class Sequences(PairRecords):
    """The pairs of one file, or of every such file in a folder, padded to the longest.

    A pair belongs to `validation` where the hash of its content, as a number in [0, 1), is below
    `validation_fraction`, so that copies of a pair never lie on both sides. Raises ConfigError and
    DataError.
    """

    name = "sequences"

    def __init__(
        self, root: str | Path, split: str = "train", validation_fraction: float = 0.05
    ) -> None:
        self.root = Path(root).expanduser()
        self.split = split
        self.validation_fraction = validation_fraction
        if split not in SPLITS or not 0 <= validation_fraction < 1:
            what = f"split={split}, validation_fraction={validation_fraction}"
            raise ConfigError(
                what, where="data", cure=f"split one of {', '.join(SPLITS)}, fraction in [0, 1)"
            )
        paths = _files(self.root)
        self.files = [PairFile(path) for path in paths]
        self.shape = _common_shape(self.files)
        scanned = [
            _identities(str(p), p.stat().st_mtime_ns, p.stat().st_size, self.shape) for p in paths
        ]
        self._rows = self._chosen(
            [(k, row, i) for k, ids in enumerate(scanned) for row, i in enumerate(ids)]
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        record = super().__getitem__(index)
        if record.sample_id != self._rows[index][2]:
            where = str(self.files[self._rows[index][0]].file.path)
            raise DataError("the file changed after it was listed", where=where, cure="start again")
        return record

    def pairs(self, rows: Sequence[int]) -> Pairs:
        """These pairs of the split, in this order."""
        parts: list[Pairs] = []
        positions: list[int] = []
        requests = [(self._rows[row][0], self._rows[row][1], i) for i, row in enumerate(rows)]
        for k, first, last in _runs(requests):
            selected = [(row, i) for file, row, i in requests if file == k and first <= row <= last]
            block = self.files[k].pairs(slice(first, last + 1), self.shape)
            parts.append(select(block, [row - first for row, _ in selected]))
            positions += [i for _, i in selected]
        return select(concatenate(parts), torch.tensor(positions).argsort().tolist())

    def of_split(self, split: str) -> Sequences:
        """The other pairs of the same files."""
        return Sequences(self.root, split, self.validation_fraction)

    def judge(self) -> NearestTarget:
        """Compare samples with up to MAX_TARGETS held-out targets, else with the split's own."""
        source = self._split("validation") if self.validation_fraction > 0 else self
        return NearestTarget(source.pairs(range(min(MAX_TARGETS, len(source)))).truth)

    def fingerprint(self) -> dict[str, Any]:
        """The content of the pairs and their order: not the root, not times, not file names."""
        content = fingerprints.hash_json([identity for _, _, identity in self._rows])
        return {"name": self.name, "content": content, "count": len(self), "split": self.split}

    def _chosen(self, rows: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        if self.split == "all":
            return rows
        validation = held_out((_hex(row[2]) for row in rows), self.validation_fraction)
        chosen = [
            row for row in rows if (_hex(row[2]) in validation) == (self.split == "validation")
        ]
        if not chosen:
            cure = "add pairs (two different ones at least) or set data.validation_fraction above 0"
            raise DataError(
                f"no pair is left for the split {self.split!r}", where=str(self.root), cure=cure
            )
        return chosen


def _hex(identity: int) -> str:
    """63 bits as a hex hash: the same number in [0, 1)."""
    return f"{2 * identity:016x}"


def _runs(requests: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """(file, first row, last row) of blocks of nearby rows, each read at once."""
    runs: list[tuple[int, int, int]] = []
    for k, row in sorted({(file, row) for file, row, _ in requests}):
        if runs and runs[-1][0] == k and row - runs[-1][2] <= MAX_GAP:
            runs[-1] = (k, runs[-1][1], row)
        else:
            runs.append((k, row, row))
    return runs


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        cure = (
            f"set data.root to a file that ends in {' or '.join(SUFFIXES)}, or to a folder of such"
        )
        raise DataError("no such file or folder", where=str(root), cure=cure)
    files = (p for p in root.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    visible = sorted(
        p for p in files if not any(part.startswith(".") for part in p.relative_to(root).parts)
    )
    if not visible:
        raise DataError(
            f"no file that ends in {' or '.join(SUFFIXES)}", where=str(root), cure="set data.root"
        )
    return visible


def _common_shape(files: list[PairFile]) -> PairShape:
    """The sizes that hold every file's pairs; DataError naming two files whose widths differ."""
    first = files[0]
    for file in files[1:]:
        for what in ("width", "condition_width", "axes", "vector"):
            one, other = getattr(first, what), getattr(file, what)
            if one != other:
                what = what.replace("axes", "columns of ids").replace("_", " ")
                raise DataError(
                    f"{what}: {one} in {first.file.path.name}, {other} in {file.file.path.name}",
                    where=str(file.file.path.parent),
                    cure="give all files tokens, ids and vectors of the same widths, or train them "
                    "apart",
                )
    return PairShape(
        tokens=max(file.tokens or 0 for file in files),
        width=first.width or 0,
        condition_tokens=max(file.condition_tokens for file in files),
        condition_width=first.condition_width,
        axes=first.axes,
        vector=first.vector,
    )


@lru_cache(maxsize=4096)
def _identities(path: str, modified: int, size: int, shape: PairShape) -> tuple[int, ...]:
    """The sample ids of a file; every number of it is read once, and checked."""
    file = PairFile(path)
    identities: list[int] = []
    for start in range(0, len(file), BLOCK):
        identities += file.pairs(slice(start, min(start + BLOCK, len(file))), shape).identities()
    return tuple(identities)
