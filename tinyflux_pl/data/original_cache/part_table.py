"""One part of a cache of the original trainer: the rows of all its files, one after another."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.progress import track
from tinyflux_pl.data.original_cache.part_file import PartFile
from tinyflux_pl.data.original_cache.parts import MAKE_AGAIN, Part
from tinyflux_pl.data.records.file_index import FileIndex, identity

DIGEST_BYTES = 32
DIGEST = re.compile("[0-9a-f]{64}")


class PartTable:
    """Rows by number. DataError for files whose rows differ in shape, or in times.

    `index` keeps the hashes of the rows of unchanged files between runs.
    """

    def __init__(self, part: Part, paths: Sequence[Path], index: FileIndex | None = None) -> None:
        self.part = part
        self._index = index
        self.files = [PartFile(path, part) for path in paths]
        self._starts = [0, *accumulate(file.rows for file in self.files)]
        first = self.files[0]
        self.times = first.times
        self.shapes = {key: first.shape(key) for key in part.columns}
        for file in self.files[1:]:
            for key, shape in self.shapes.items():
                same = (file.shape(key), file.tensors[key].dtype) == (
                    shape,
                    first.tensors[key].dtype,
                )
                if not same or file.times != self.times:
                    what = f"{key} or its times differ from those of {first.path.name}"
                    raise DataError(what, where=str(file.path), cure=MAKE_AGAIN)
        self._is_finite = False

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def lengths(self) -> list[int]:
        """Rows of each file."""
        return [file.rows for file in self.files]

    def gather(self, key: str, rows: Sequence[int]) -> Tensor:
        """These rows of one tensor, in this order, as they are stored."""
        located = [self._locate(row) for row in rows]
        result = torch.empty((len(rows), *self.shapes[key]), dtype=self.files[0].tensors[key].dtype)
        for k in {k for k, _ in located}:
            positions = [i for i, (file, _) in enumerate(located) if file == k]
            result[positions] = self.files[k].gather(key, [located[i][1] for i in positions])
        return result

    def prompt(self, row: int) -> str:
        """The prompt of a row; "" where its file has none."""
        k, local = self._locate(row)
        prompts = self.files[k].prompts
        return "" if prompts is None else prompts[local]

    def name(self, row: int) -> str:
        """The file and the row within it, for messages."""
        k, local = self._locate(row)
        return f"{self.files[k].path.name}[{local}]"

    @cached_property
    def digests(self) -> list[str]:
        """The hash (hex) of the content of each row, prompts included."""
        stored = [self._stored(file) for file in self.files]
        pending = [k for k, digests in enumerate(stored) if digests is None]
        rows = [row for k in pending for row in range(*self._starts[k : k + 2])]
        tracked = track(rows, f"{self.part.name}: hash", len(rows), "row", leave=False)
        hashed = iter([self._digest(row) for row in tracked])
        for k in pending:
            stored[k] = list(islice(hashed, self.files[k].rows))
            self._keep(self.files[k], stored[k])
        if self._index is not None:
            self._index.save()
        return [digest for digests in stored for digest in digests or ()]

    def require_finite(self) -> None:
        """Raise DataError naming the first row with a value that is not finite; read once."""
        if not self._is_finite:
            for file in self.files:
                file.require_finite()
        self._is_finite = True

    def _stored(self, file: PartFile) -> list[str] | None:
        """The hashes of a file's rows from an earlier run; None if they must be computed."""
        current = identity(str(file.path))
        if self._index is None or current != file.stamp:
            return None
        digests = self._index.value(str(file.path), current)
        valid = isinstance(digests, list) and len(digests) == file.rows
        return digests if valid and all(map(_is_digest, digests)) else None

    def _keep(self, file: PartFile, digests: list[str] | None) -> None:
        """Store the hashes of a file that has not changed since it was opened."""
        current = identity(str(file.path))
        if self._index is not None and current == file.stamp:
            self._index.add(str(file.path), current, digests)

    def _locate(self, row: int) -> tuple[int, int]:
        """The file of a row, and the row in it."""
        k = bisect_right(self._starts, row) - 1
        return k, row - self._starts[k]

    def _digest(self, row: int) -> str:
        k, local = self._locate(row)
        content = hashlib.blake2b(self.prompt(row).encode(), digest_size=DIGEST_BYTES)
        for tensor in self.files[k].row_bytes(local):
            content.update(tensor)
        return content.hexdigest()


def _is_digest(value: Any) -> bool:
    """True for a hash as `PartTable.digests` holds it."""
    return isinstance(value, str) and DIGEST.fullmatch(value) is not None
