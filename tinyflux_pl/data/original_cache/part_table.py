"""One part of a cache of the original trainer: the rows of all its files, one after another."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.progress import track
from tinyflux_pl.data.original_cache.part_file import PartFile
from tinyflux_pl.data.original_cache.parts import MAKE_AGAIN, Part

DIGEST_BYTES = 32


class PartTable:
    """Rows by number. DataError for files whose rows differ in shape, or in times."""

    def __init__(self, part: Part, paths: Sequence[Path]) -> None:
        self.part = part
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
        """The file and the row in it, for messages."""
        k, local = self._locate(row)
        return f"{self.files[k].path.name}[{local}]"

    @cached_property
    def digests(self) -> list[str]:
        """The hash (hex) of the content of each row, prompts included."""
        rows = track(range(len(self)), f"{self.part.name}: hash", len(self), "row", leave=False)
        return [self._digest(row) for row in rows]

    def require_finite(self) -> None:
        """Raise DataError naming the first row with a value that is not finite; read once."""
        if not self._is_finite:
            for file in self.files:
                file.require_finite()
        self._is_finite = True

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
