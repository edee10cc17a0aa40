"""A few samples encoded in memory, in place of an incomplete store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.fitting import control_maps
from tinyflux_pl.cache.store import ENCODINGS
from tinyflux_pl.core.precision import check_dtype
from tinyflux_pl.data.records.record_source import RecordSource

MAX_SAMPLES = 2
CAPTION_END_BYTES = 8  # of the offset that ends a caption


class InMemoryStore:
    """A few records of the largest frame, with the interface of a store that cache.dataset reads.

    Experts' buckets are constants.

    `row_bytes`: bytes of one row, by group. Writes nothing and runs no teacher.
    """

    def __init__(self, parts: Parts, records: RecordSource, experts: Sequence[str]) -> None:
        from tinyflux_pl.extraction.columns import columns_of
        from tinyflux_pl.extraction.precomputed import precomputed_columns

        dtype = check_dtype(parts.config.data.store_dtype, "data.store_dtype")
        rows = samples_of(records)
        samples = [records[i] for i in rows]
        self.root = "memory"
        self.name = "samples"
        self._captions = [[*record.captions] for record in samples]
        if ENCODINGS in records.precomputed:
            columns = precomputed_columns(records, ENCODINGS, rows, parts.text, dtype)
        else:
            codec, text = parts.codec.to(parts.device), parts.text.to(parts.device)
            form, flip = control_maps.hint_form(parts.config), parts.config.data.flip
            columns = columns_of(
                samples, codec, text, dtype, parts.device, form, records.variants, flip
            )
        self._columns = {ENCODINGS: columns}
        parts.text.to("cpu")  # as after the encoding of a complete store
        latents = tuple(self._columns[ENCODINGS]["latents"].shape[1:])
        for name in experts:
            spec = parts.cached[name].spec
            self._columns[name] = {
                f"{name}.{key}": _constant(
                    (len(samples), len(spec.t_buckets), *shape), shape, spec.dtype_of(key, dtype)
                )
                for key, shape in spec.shapes_for(latents).items()
            }
        self.row_bytes = {
            group: sum(column[0].nbytes for column in columns.values())
            for group, columns in self._columns.items()
        }
        texts = [caption for captions in self._captions for caption in captions]
        caption_bytes = sum(len(caption.encode()) + CAPTION_END_BYTES for caption in texts)
        self.row_bytes[ENCODINGS] += caption_bytes // len(samples)

    def __len__(self) -> int:
        return len(self._captions)

    def groups(self) -> dict[str, dict[str, Any]]:
        """Group -> an empty fingerprint."""
        return {group: {} for group in self._columns}

    def complete(self, group: str) -> bool:
        """True for the encodings and the requested experts."""
        return group in self._columns

    def layout(self, group: str) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Key -> (dtype, shape of a row)."""
        return {
            key: (column.dtype, tuple(column.shape[1:]))
            for key, column in self._columns[group].items()
        }

    def segment_layouts(self, group: str) -> list[tuple[range, dict]]:
        """All rows, of one shape, and their layout."""
        return [(range(len(self)), self.layout(group))]

    def gather(self, key: str, indices: Tensor | Sequence[int], first: int | None = None) -> Tensor:
        """Rows of one column, each cut to the `first` entries of its first axis."""
        column = next(columns[key] for columns in self._columns.values() if key in columns)
        rows = column[torch.as_tensor(indices, dtype=torch.long)]
        return rows if first is None else rows[:, :first]

    def captions(self, indices: Tensor | Sequence[int]) -> list[str]:
        """The (first) captions of these rows."""
        return [texts[0] for texts in self.caption_variants(indices)]

    def caption_variants(self, indices: Tensor | Sequence[int]) -> list[list[str]]:
        """Every caption of these rows."""
        return [self._captions[int(i)] for i in indices]


def samples_of(records: RecordSource) -> range:
    """The first MAX_SAMPLES records of the frame with the most pixels."""
    best, start, largest = range(0), 0, -1
    for frame, count in records.segments:
        pixels = 0 if frame is None else math.prod(frame)
        if pixels > largest:
            best, largest = range(start, start + min(MAX_SAMPLES, count)), pixels
        start += count
    return best


def _constant(shape: tuple[int, ...], cells: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Finite values; maps sum to 1, as a teacher's do."""
    return torch.full(shape, 1 / max(1, torch.Size(cells).numel()), dtype=dtype)
