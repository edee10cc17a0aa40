"""A few samples encoded in memory, in a store's place while the store is not made yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.app.components import Parts
from tinyflux_pl.cache.store import ENCODINGS
from tinyflux_pl.core.precision import check_dtype

SAMPLES = 2
CAPTION_END = 8  # bytes that say where a caption ends


class SampledStore:
    """The first SAMPLES records as data.cached_dataset reads a store; the experts' buckets are made up.

    `rows` are bytes of one row by group. Nothing is written; teachers are not asked.
    """

    def __init__(self, parts: Parts, records: Any, experts: Sequence[str]) -> None:
        from tinyflux_pl.extraction.encode import columns_of

        dtype = check_dtype(parts.config["data"]["store_dtype"], "data.store_dtype")
        read = [records[i] for i in range(min(SAMPLES, len(records)))]
        codec, text = parts.codec.to(parts.device), parts.text.to(parts.device)
        self.root, self.name, self._captions = "memory", "samples", [record.caption for record in read]
        self._columns = {ENCODINGS: columns_of(read, codec, text, dtype, parts.device)}
        parts.text.to("cpu")  # as after the encoding of a whole store
        for name in experts:
            spec = parts.experts[name].spec
            self._columns[name] = {
                f"{name}.{key}": _evenly((len(read), len(spec.t_buckets), *shape), shape, dtype)
                for key, shape in spec.shapes.items()
            }
        self.rows = {group: sum(column[0].nbytes for column in held.values()) for group, held in self._columns.items()}
        self.rows[ENCODINGS] += sum(len(caption.encode()) + CAPTION_END for caption in self._captions) // len(read)

    def __len__(self) -> int:
        return len(self._captions)

    def groups(self) -> dict[str, dict[str, Any]]:
        """The groups, made from nothing that could differ."""
        return {group: {} for group in self._columns}

    def complete(self, group: str) -> bool:
        """Every group that was asked for is there."""
        return group in self._columns

    def layout(self, group: str) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Key -> type and row shape."""
        return {key: (column.dtype, tuple(column.shape[1:])) for key, column in self._columns[group].items()}

    def gather(self, key: str, indices: Tensor | Sequence[int], first: int | None = None) -> Tensor:
        """Rows of one column, the first entries of each."""
        column = next(held[key] for held in self._columns.values() if key in held)
        found = column[torch.as_tensor(indices, dtype=torch.long)]
        return found if first is None else found[:, :first]

    def captions(self, indices: Tensor | Sequence[int]) -> list[str]:
        """The captions of these rows."""
        return [self._captions[int(i)] for i in indices]


def _evenly(shape: tuple[int, ...], cells: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Finite values; those of a map sum to 1, as a teacher's do."""
    return torch.full(shape, 1 / max(1, torch.Size(cells).numel()), dtype=dtype)
