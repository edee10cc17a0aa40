"""A small store with two groups, and what is in it."""

from pathlib import Path

import numpy as np
import torch

from tinyflux_pl.cache.sample_keys import digest
from tinyflux_pl.cache.store import CacheStore

PARTS = {
    "codec": {"name": "pixels", "fold": 4},
    "text": {"name": "hashed", "width": 6},
    "image_size": 32,
}
CAPTIONS = ["a red circle", "", "zwei grüne Kreise", "円", "x" * 300, "a\nline", "\u2028"]


def tensors(rows: range) -> dict[str, torch.Tensor]:
    """The encodings of these rows."""

    def drawn(i: int, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(i))

    return {
        "latents": torch.stack([drawn(i, 4, 3, 3) for i in rows]).bfloat16(),
        "text.tokens": torch.stack([drawn(i, 5, 6) for i in rows]).half(),
        "text.mask": torch.stack([torch.arange(5) < 1 + i % 5 for i in rows]),
        "text.pooled": torch.stack([drawn(i, 7) for i in rows]),
        "sample_ids": torch.tensor([2**62 + i for i in rows]),
    }


def keys(rows: range) -> np.ndarray:
    """The keys of samples, so that two stores may share some."""
    return np.stack([np.frombuffer(digest(["sample", i]), np.uint8) for i in rows])


def written(root: Path, total: int = 7, shard_size: int = 3) -> CacheStore:
    """A store with both groups complete."""
    store = CacheStore.create(
        root, "toy", total, shard_size, {"seed": 1}, lambda: keys(range(total))
    )
    store.begin_group("encodings", PARTS)
    for k in store.pending("encodings"):
        store.write_shard(
            "encodings", k, tensors(store.rows(k)), [CAPTIONS[i % 7] for i in store.rows(k)]
        )
    store.begin_group("lune", {"teacher": "t", "buckets": [0.25, 0.75]})
    for k in store.pending("lune"):
        features = torch.stack([torch.full((2, 8), float(i)) for i in store.rows(k)])
        store.write_shard("lune", k, {"lune.features" if k else "features": features})
    return store


def shard_faults(store: CacheStore) -> list[str]:
    """Hash every shard again; one line for each that is missing, truncated or altered."""
    shards = [(name, k) for name in store.groups() for k in range(store.shards)]
    faults = [(name, store.group(name).fault(k)) for name, k in shards]
    return [f"{name}/{fault}" for name, fault in faults if fault]
