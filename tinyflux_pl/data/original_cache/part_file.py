"""One file of a cache of the original trainer, checked and mapped into memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.torch_archive import read_archive
from tinyflux_pl.data.original_cache.parts import MAKE_AGAIN, Part

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
ORIGIN = "use caches that you made yourself: this file is never opened"
MAX_TIMES = 1000
BLOCK = 256  # rows that are examined at once


class PartFile:
    """The tensors of one file by key, (N, ...) each, with its prompts or its buckets' times.

    `prompts` is None where the file has none. Raises UntrustedFile for a file that is more than
    tensors and plain types, DataError for one of another layout.
    """

    def __init__(self, path: Path, part: Part) -> None:
        self.path, self.part = path, part
        self.stamp = _stamp(path)  # inode, size and times, as it was opened
        content = read_archive(path, DataError, MAKE_AGAIN, ORIGIN, mapped=True)
        if not isinstance(content, dict):
            raise self._fault(f"it holds a {type(content).__name__}, not a dictionary")
        self.tensors = {key: self._tensor(content, key) for key in part.columns}
        lengths = {key: len(tensor) for key, tensor in self.tensors.items()}
        self.rows = next(iter(lengths.values()))
        if len({*lengths.values()}) > 1 or not self.rows:
            raise self._fault(f"rows of its tensors: {lengths}")
        self.times = self._times(content) if part.has_times else ()
        self.prompts = None if part.has_times else self._prompts(content)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a row."""
        return tuple(self.tensors[key].shape[1:])

    def gather(self, key: str, rows: Sequence[int]) -> Tensor:
        """These rows of one tensor; DataError if the file changed after it was opened."""
        self._require_unchanged()
        return self.tensors[key][torch.as_tensor(rows, dtype=torch.long)]

    def row_bytes(self, row: int) -> list[bytes]:
        """The content of a row, tensor by tensor."""
        return [
            t[row].contiguous().view(torch.uint8).numpy().tobytes() for t in self.tensors.values()
        ]

    def require_finite(self) -> None:
        """Raise DataError naming the first row with a value that is not finite."""
        self._require_unchanged()
        for key, tensor in self.tensors.items():
            for start in range(0, self.rows, BLOCK):
                finite = torch.isfinite(tensor[start : start + BLOCK]).flatten(1).all(1)
                if not bool(finite.all()):
                    row = start + int((~finite).nonzero()[0])
                    raise self._fault(f"{key} of row {row:,} is not finite")

    def _tensor(self, content: dict[str, Any], key: str) -> Tensor:
        tensor = content.get(key)
        if not isinstance(tensor, Tensor):
            keys = ", ".join(sorted(map(str, content))[:10]) or "nothing"
            raise self._fault(f"no tensor {key!r}; it holds {keys}")
        if tensor.dtype not in DTYPES:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise self._fault(f"{key} is {kind}, not float16, bfloat16 or float32")
        if tensor.ndim != self.part.axes[key] or 0 in tensor.shape:
            shape = tuple(tensor.shape)
            raise self._fault(f"{key} is {shape}, not {self.part.axes[key]} axes with entries")
        return tensor

    def _times(self, content: dict[str, Any]) -> tuple[float, ...]:
        value = content.get("t_buckets")
        if (
            isinstance(value, Tensor)
            and value.ndim == 1
            and value.dtype in (*DTYPES, torch.float64)
        ):
            value = value.tolist()
        is_list = isinstance(value, list) and 0 < len(value) <= MAX_TIMES
        if not is_list or not all(type(t) is float and 0 <= t <= 1 for t in value):
            raise self._fault("t_buckets holds no times in [0, 1]")
        times = tuple(round(t, 6) for t in value)  # of float32
        axes = {key: tensor.shape[1] for key, tensor in self.tensors.items()}
        if {*axes.values()} != {len(times)} or any(a >= b for a, b in pairwise(times)):
            raise self._fault(f"{len(times)} times in t_buckets, rising; buckets of {axes}")
        return times

    def _prompts(self, content: dict[str, Any]) -> list[str] | None:
        prompts = content.get("prompts")
        if prompts is None:
            return None
        if not isinstance(prompts, list) or len(prompts) != self.rows:
            count = len(prompts) if isinstance(prompts, list) else type(prompts).__name__
            raise self._fault(f"prompts: {count}, and {self.rows:,} rows")
        for row, prompt in enumerate(prompts):
            if not isinstance(prompt, str) or "\0" in prompt or not _is_unicode(prompt):
                raise self._fault(f"the prompt of row {row:,} is no text of Unicode characters")
        return prompts

    def _require_unchanged(self) -> None:
        if _stamp(self.path) != self.stamp:
            what = "the file changed after it was opened"
            raise DataError(what, where=str(self.path), cure="start again")

    def _fault(self, what: str) -> DataError:
        return DataError(what, where=str(self.path), cure=MAKE_AGAIN)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=str(path), cure=MAKE_AGAIN
        ) from error
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_unicode(text: str) -> bool:
    """True for text without halves of surrogate pairs, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
