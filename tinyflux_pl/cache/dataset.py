"""A cache store as a dataset whose items are collated batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tinyflux_pl.cache.staleness import rebuild_hint
from tinyflux_pl.cache.store import ENCODINGS, CacheStore
from tinyflux_pl.core.errors import StaleCache
from tinyflux_pl.core.interpreter import extraction
from tinyflux_pl.core.size_conditioning import SIZE_IDS
from tinyflux_pl.core.types import TARGET, Batch, TextEmbeddings

Item = TypeVar("Item")


def collate(batch: Item) -> Item:
    """The DataLoader's collate_fn: `__getitems__` has collated the batch already."""
    return batch


def reference_keys(layout: Iterable[str]) -> list[str]:
    """The keys of reference pictures, in the order of their numbers."""
    return sorted(
        (key for key in layout if key.startswith("reference.")),
        key=lambda key: int(key.split(".")[1]),
    )


class CachedDataset(Dataset):
    """Serves the encodings and the named expert groups of a store, latents and text in fp32.

    Use with DataLoader(batch_sampler=..., collate_fn=collate, num_workers=0): workers only add
    copies to what is already a memory map.
    """

    def __init__(
        self,
        store: CacheStore,
        groups: Sequence[str] = (),
        in_memory: bool = False,
        dataset_id: int = 0,
    ) -> None:
        self.store = store
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
        self.expert_keys = tuple(k for k in self.layout if k.partition(".")[0] in self.groups)
        self._memory: dict[str, Tensor] | None = None
        self._captions: list[str] | None = None
        if in_memory:
            everything = torch.arange(len(store))
            self._memory = {key: store.gather(key, everything) for key in self.layout}
            self._captions = store.captions(everything)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> Batch:
        """One sample, as a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """The samples in this order, collated; text is cut to the longest caption among them."""
        index = torch.as_tensor(indices, dtype=torch.long)
        mask = self._rows("text.mask", index).bool()
        used = int(mask.any(0).nonzero().max()) + 1 if bool(mask.any()) else 1
        text = TextEmbeddings(
            self._rows("text.tokens", index, used).float(),
            mask[:, :used],
            self._rows("text.pooled", index).float(),
        )
        present = torch.ones(len(index), dtype=torch.bool)
        captions = self._captions
        return Batch(
            latents=self._rows("latents", index).float(),
            text=text,
            sample_ids=self._rows("sample_ids", index),
            dataset_ids=torch.full((len(index),), self.dataset_id),
            captions=self.store.captions(index)
            if captions is None
            else [captions[i] for i in index.tolist()],
            experts={key: self._rows(key, index).float() for key in self.expert_keys},
            expert_present={group: present.clone() for group in self.groups},
            masks=self._rows("masks", index).float() if "masks" in self.layout else None,
            references=tuple(self._rows(key, index).float() for key in reference_keys(self.layout)),
            inpaint=self._rows("inpaint", index).float() if "inpaint" in self.layout else None,
            size_ids=self._rows(SIZE_IDS, index).float() if SIZE_IDS in self.layout else None,
            **{name: self._rows(name, index) for name in TARGET if name in self.layout},
        )

    @property
    def lengths(self) -> list[int]:
        """Samples of each source: there is one."""
        return [len(self)]

    @property
    def shapes(self) -> list[tuple[tuple[int, ...], ...]]:
        """Of each source, the shapes that must agree within a batch, that of the latents first."""
        keys = ["latents", *(["inpaint"] if "inpaint" in self.layout else [])]
        keys += reference_keys(self.layout)
        return [tuple(self.layout[key][1] for key in keys)]

    def fingerprint(self, group: str = ENCODINGS) -> dict[str, Any]:
        """The inputs that a group was made from."""
        return self.store.groups()[group]

    def _rows(self, key: str, index: Tensor, first: int | None = None) -> Tensor:
        if self._memory is None:
            return self.store.gather(key, index, first)
        return (
            self._memory[key][:, :first].index_select(0, index)
            if first
            else self._memory[key][index]
        )
