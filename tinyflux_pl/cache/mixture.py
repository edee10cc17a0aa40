"""Several cached datasets served as one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tinyflux_pl.cache.dataset import CachedDataset, reference_keys
from tinyflux_pl.cache.sample_order import StepRows
from tinyflux_pl.cache.staleness import differences
from tinyflux_pl.cache.store import ENCODINGS
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.hint_forms import HINT
from tinyflux_pl.core.size_conditioning import SIZE_IDS
from tinyflux_pl.core.types import TARGET, VELOCITY, Batch, TextEmbeddings

# parts of a fingerprint that must agree for the numbers of two caches to mean the same
SHARED_PARTS = {ENCODINGS: ("codec", "text")}
SHARED_EXPERT_PARTS = ("teacher", "buckets", "t_buckets", "clock")
# columns whose last two axes are height and width, besides the references
PIXELWISE = (
    "latents",
    "masks",
    "inpaint",
    HINT,
)  # with the references: their last two axes are a picture's height and width


class Mixture(Dataset):
    """Several sources by dataset id; a batch may mix them.

    Indices run through the sources in order of their ids.

    A source without an expert is marked absent in `expert_present`; one without masks counts as
    foreground everywhere. Sources may differ in the size of their pictures, but not within a batch:
    give `lengths`, `weights` and `runs` to sample_order. Raises SpecMismatch naming two sources
    whose shapes, codec, text encoder or teacher differ.
    """

    def __init__(
        self, datasets: Mapping[int, CachedDataset], weights: Mapping[int, float] | None = None
    ) -> None:
        if not datasets or (weights is not None and set(weights) != set(datasets)):
            what = f"weights for {sorted(weights or ())}, sources {sorted(datasets)}"
            raise ConfigError(what, where="data.weights", cure="give one weight for each source")
        self.datasets = {i: datasets[i] for i in sorted(datasets)}
        self.lengths = [len(d) for d in self.datasets.values()]
        self.weights = None if weights is None else [float(weights[i]) for i in self.datasets]
        self._ends = torch.tensor(self.lengths).cumsum(0)
        starts = (
            end - length for end, length in zip(self._ends.tolist(), self.lengths, strict=True)
        )
        self.runs = [
            [(range(start + rows.start, start + rows.stop), shape) for rows, shape in d.runs[0]]
            for start, d in zip(starts, self.datasets.values(), strict=True)
        ]
        self.layout: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        self.groups = tuple(dict.fromkeys(g for d in self.datasets.values() for g in d.groups))
        owners: dict[str, int] = {}
        base = next(iter(self.datasets.values()))
        for i, dataset in self.datasets.items():
            pictures = _picture_keys(dataset)
            expected = _picture_keys(base)
            if pictures != expected:
                what = f"image inputs differ: {expected} and {pictures}"
                raise self._mismatch(next(iter(self.datasets)), i, what)
            for key, kind in dataset.layout.items():
                owner = owners.setdefault(key, i)
                first_kind = self.layout.setdefault(key, kind)
                if _comparable(key, first_kind[1]) != _comparable(key, kind[1]):
                    what = f"{key}: rows of {first_kind[1]} and of {kind[1]}"
                    raise self._mismatch(owner, i, what)
            for group in (ENCODINGS, *dataset.groups):
                first = next(j for j, d in self.datasets.items() if group in (ENCODINGS, *d.groups))
                if lines := differences(self._meaning(i, group), self._meaning(first, group)):
                    raise self._mismatch(first, i, f"{group}: {'; '.join(lines)}")
        self.expert_keys = tuple(k for k in self.layout if k.partition(".")[0] in self.groups)

    def __len__(self) -> int:
        return sum(self.lengths)

    def __getitem__(self, index: int) -> Batch:
        """One sample, as a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """The samples in this order, from any sources."""
        index = torch.as_tensor(indices, dtype=torch.long)
        source = torch.bucketize(index, self._ends, right=True)
        starts = self._ends - torch.tensor(self.lengths)
        parts: list[Batch] = []
        ids: list[int] = []
        positions: list[Tensor] = []
        for k, (dataset_id, dataset) in enumerate(self.datasets.items()):
            rows = (source == k).nonzero().flatten()
            if len(rows):
                local = (index[rows] - starts[k]).tolist()
                if isinstance(indices, StepRows):
                    local = StepRows(local, indices.step)
                parts.append(dataset.__getitems__(local))
                ids.append(dataset_id)
                positions.append(rows)
        restore_order = torch.cat(positions).argsort()

        def merge(tensors: list[Tensor]) -> Tensor:
            return torch.cat(tensors)[restore_order]

        masks = None
        if "masks" in self.layout:
            masks = merge([_ones_like_mask(p) if p.masks is None else p.masks for p in parts])
        captions = [caption for part in parts for caption in part.captions]
        return Batch(
            latents=merge([p.latents for p in parts]),
            text=TextEmbeddings.cat([p.text for p in parts]).select(restore_order),
            sample_ids=merge([p.sample_ids for p in parts]),
            dataset_ids=merge([torch.full((len(p),), i) for p, i in zip(parts, ids, strict=True)]),
            captions=[captions[i] for i in restore_order.tolist()],
            experts={key: merge([self._expert(p, key) for p in parts]) for key in self.expert_keys},
            expert_present={
                g: merge(
                    [p.expert_present.get(g, torch.zeros(len(p), dtype=torch.bool)) for p in parts]
                )
                for g in self.groups
            },
            masks=masks,
            references=tuple(
                merge([p.references[k] for p in parts])
                for k in range(len(reference_keys(self.layout)))
            ),
            inpaint=merge([p.inpaint for p in parts]) if "inpaint" in self.layout else None,
            size_ids=merge([self._sizes(p) for p in parts]) if SIZE_IDS in self.layout else None,
            hint=merge([p.hint for p in parts]) if HINT in self.layout else None,
            **{
                name: merge([getattr(p, name) for p in parts])
                for name in TARGET
                if name in self.layout
            },
        )

    def shape_of(self, index: int) -> tuple[int, ...]:
        """The shape (C, H, W) of one sample's latents."""
        return next(shape[0] for runs in self.runs for rows, shape in runs if index in rows)

    def _expert(self, part: Batch, key: str) -> Tensor:
        buckets = part.experts.get(key)
        if buckets is not None:
            return buckets
        shape = self.layout[key][1]
        if _is_velocity(key):  # of this batch's pictures, not of the first source's
            shape = (*shape[:-2], *part.latents.shape[-2:])
        return torch.zeros(len(part), *shape)

    def _sizes(self, part: Batch) -> Tensor:
        """The part's size ids; pictures without any are uncropped and of their original size."""
        if part.size_ids is not None:
            return part.size_ids
        height, width = (side * self._pixels_per_cell for side in part.latents.shape[-2:])
        size_ids = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32)
        return size_ids.expand(len(part), -1)

    @cached_property
    def _pixels_per_cell(self) -> float:
        """Pixels along the side of a latent cell, from a source with size ids."""
        sample = next(d for d in self.datasets.values() if SIZE_IDS in d.layout)[0]
        assert sample.size_ids is not None
        return float(sample.size_ids[0, 4]) / sample.latents.shape[-2]

    def _meaning(self, dataset_id: int, group: str) -> dict[str, Any]:
        """The parts of a group's fingerprint that sources must share."""
        fingerprint = self.datasets[dataset_id].fingerprint(group)
        parts = SHARED_PARTS.get(group, SHARED_EXPERT_PARTS)
        return {part: fingerprint[part] for part in parts if part in fingerprint}

    def _mismatch(self, first: int, second: int, what: str) -> SpecMismatch:
        names = [f"{i} ({self.datasets[i].store.name})" for i in (first, second)]
        cure = "extract both with the same codec, text encoder and teachers"
        return SpecMismatch(
            f"sources {names[0]} and {names[1]} do not fit: {what}", where="data", cure=cure
        )


def _picture_keys(dataset: CachedDataset) -> list[str]:
    """Columns of pictures that the denoiser receives beside x_t."""
    references = reference_keys(dataset.layout)
    return sorted(k for k in dataset.layout if k in ("inpaint", HINT) or k in references)


def _comparable(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The part of a row's shape that sources must share: without height and width for pictures."""
    pixelwise = key in PIXELWISE or key.startswith("reference.") or _is_velocity(key)
    return (len(shape), *shape[:-2]) if pixelwise else shape


def _is_velocity(key: str) -> bool:
    return key.endswith(f".{VELOCITY}")


def _ones_like_mask(part: Batch) -> Tensor:
    """Foreground everywhere, (B, H, W) of the latents."""
    return torch.ones(len(part), *part.latents.shape[-2:])
