"""A cache store as a dataset whose items are collated batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tinyflux_pl.cache.cached_text import COUNT, chosen_variants, text_of, variants_in
from tinyflux_pl.cache.flipped_columns import FLIPPED, Rows, drawn_flips, with_flips
from tinyflux_pl.cache.sample_order import StepRows
from tinyflux_pl.cache.staleness import rebuild_hint
from tinyflux_pl.cache.store import ENCODINGS, CacheStore
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import StaleCache
from tinyflux_pl.core.hint_forms import HINT
from tinyflux_pl.core.interpreter import extraction
from tinyflux_pl.core.size_conditioning import SIZE_IDS
from tinyflux_pl.core.types import TARGET, Batch

DEVIATION = "latents_deviation"  # the column beside latents from which training draws
Item = TypeVar("Item")
Shape = tuple[tuple[int, ...], ...]


def collate(batch: Item) -> Item:
    """The DataLoader's collate_fn: `__getitems__` has collated the batch already."""
    return batch


def reference_keys(layout: Iterable[str]) -> list[str]:
    """The keys of reference pictures, in numerical order."""
    return sorted(
        (key for key in layout if key.startswith("reference.")),
        key=lambda key: int(key.split(".")[1]),
    )


class CachedDataset(Dataset):
    """Serves the encodings and the named expert groups of a store, latents and text in fp32.

    Of a row with several captions, rows for a step (StepRows) get the one that (`seed`, sample,
    step) draws, others the first; of latents with a deviation likewise a sample, others the mean;
    of a picture with a mirror image either, others the picture. Teachers have not seen the mirror
    image and count as absent from it.
    Use with DataLoader(batch_sampler=..., collate_fn=collate, num_workers=0): workers only add
    copies to what is already a memory map.
    """

    def __init__(
        self,
        store: CacheStore,
        groups: Sequence[str] = (),
        in_memory: bool = False,
        dataset_id: int = 0,
        seed: int = 0,
    ) -> None:
        self.store = store
        self.seed = seed
        self.groups = tuple(groups)
        self.dataset_id = dataset_id
        for group in (ENCODINGS, *self.groups):
            if not store.complete(group):
                left = len(store.pending(group)) if group in store.groups() else store.shards
                what = f"the cached {group!r} lacks {left} of {store.shards} shards"
                raise StaleCache(what, where=str(store.root), cure=f"finish it: {extraction()}")
        self.layout = {
            key: kind for g in (ENCODINGS, *self.groups) for key, kind in store.layout(g).items()
        }
        missing = {
            "latents",
            "text.tokens",
            "text.mask",
            "text.pooled",
            "sample_ids",
        } - self.layout.keys()
        if missing:
            raise StaleCache(
                f"the encodings lack {', '.join(sorted(missing))}",
                where=str(store.root),
                cure=rebuild_hint(),
            )
        self.variants = variants_in(tuple(self.layout))
        self.expert_keys = tuple(k for k in self.layout if k.partition(".")[0] in self.groups)
        self._memory: dict[str, list[tuple[int, Tensor]]] | None = None
        self._captions: list[list[str]] | None = None
        if in_memory:
            self._memory = {key: self._loaded(key) for key in self.layout}
            self._captions = store.caption_variants(torch.arange(len(store)))

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> Batch:
        """One sample, as a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """The samples in this order, collated; text is cut to the longest caption among them."""
        index = torch.as_tensor(indices, dtype=torch.long)
        chosen = self._chosen_captions(indices, index)
        flips = self._flips(indices, index)
        rows = self._rows if flips is None else with_flips(self._rows, flips)
        present = torch.ones(len(index), dtype=torch.bool) if flips is None else ~flips
        written = self._captions
        captions = (
            self.store.caption_variants(index)
            if written is None
            else [written[i] for i in index.tolist()]
        )
        return Batch(
            latents=self._latents(indices, index, rows),
            text=text_of(self._rows, index, chosen),
            sample_ids=self._rows("sample_ids", index),
            dataset_ids=torch.full((len(index),), self.dataset_id),
            captions=[texts[k] for texts, k in zip(captions, chosen, strict=True)],
            experts={key: self._rows(key, index).float() for key in self.expert_keys},
            expert_present={group: present.clone() for group in self.groups},
            masks=rows("masks", index).float() if "masks" in self.layout else None,
            references=tuple(self._rows(key, index).float() for key in reference_keys(self.layout)),
            inpaint=self._rows("inpaint", index).float() if "inpaint" in self.layout else None,
            size_ids=self._rows(SIZE_IDS, index).float() if SIZE_IDS in self.layout else None,
            hint=_pixels(rows(HINT, index)) if HINT in self.layout else None,
            **{name: self._rows(name, index) for name in TARGET if name in self.layout},
        )

    @property
    def lengths(self) -> list[int]:
        """Number of samples of each source; here one."""
        return [len(self)]

    @property
    def runs(self) -> list[list[tuple[range, Shape]]]:
        """For each source (here one) its consecutive rows of one shape.

        Shapes are those that must agree within a batch, that of the latents first.
        """
        keys = ["latents", *(key for key in ("inpaint", HINT) if key in self.layout)]
        keys += reference_keys(self.layout)
        layouts = self.store.segment_layouts(ENCODINGS)
        return [[(rows, tuple(layout[key][1] for key in keys)) for rows, layout in layouts]]

    def fingerprint(self, group: str = ENCODINGS) -> dict[str, Any]:
        """The fingerprint of the inputs of a group."""
        return self.store.groups()[group]

    def _flips(self, indices: list[int], index: Tensor) -> Tensor | None:
        """True (B,) where a step uses the mirror image; None if no row is drawn mirrored."""
        if f"{FLIPPED}latents" not in self.layout or not isinstance(indices, StepRows):
            return None
        ids = self._rows("sample_ids", index).tolist()
        return drawn_flips(self.seed, ids, indices.step)

    def _latents(self, indices: list[int], index: Tensor, rows: Rows) -> Tensor:
        """Means, or for a step samples of the posterior: of (seed, sample, step)."""
        mean = rows("latents", index).float()
        if DEVIATION not in self.layout or not isinstance(indices, StepRows):
            return mean
        ids = self._rows("sample_ids", index).tolist()
        noise = rng.normal(mean.shape[1:], self.seed, "posterior", ids, indices.step)
        return mean + rows(DEVIATION, index).float() * noise

    def _chosen_captions(self, indices: list[int], index: Tensor) -> list[int]:
        """The number of each row's caption: 0 unless the rows are drawn for a step."""
        if self.variants == 1 or not isinstance(indices, StepRows):
            return [0] * len(index)
        ids = self._rows("sample_ids", index).tolist()
        counts = self._rows(COUNT, index).tolist()
        return chosen_variants(self.seed, ids, counts, indices.step)

    def _loaded(self, key: str) -> list[tuple[int, Tensor]]:
        """The rows of each segment and its first row; all rows for a column of one shape."""
        layouts = self.store.segment_layouts(ENCODINGS)
        if len({layout.get(key) for _, layout in layouts}) == 1:
            return [(0, self.store.gather(key, torch.arange(len(self))))]
        starts = [(rows.start, torch.arange(rows.start, rows.stop)) for rows, _ in layouts]
        return [(start, self.store.gather(key, rows)) for start, rows in starts]

    def _rows(self, key: str, index: Tensor, first: int | None = None) -> Tensor:
        if self._memory is None:
            return self.store.gather(key, index, first)
        start, column = next(p for p in reversed(self._memory[key]) if p[0] <= int(index.min()))
        local = index - start
        return column[:, :first].index_select(0, local) if first else column[local]


def _pixels(maps: Tensor) -> Tensor:
    """Maps as their network reads them: bytes become floats in [0, 1]."""
    return maps.float().div(255) if maps.dtype == torch.uint8 else maps.float()
