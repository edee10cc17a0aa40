"""Small caches in the layout of the original trainer, written as it writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.experts.bucket_interpolation import T_BUCKETS
from tinyflux_pl.text.hashed_words import HashedWords

COUNT, WIDTH, LENGTH, LUNE_WIDTH, SIDE = 6, 16, 8, 20, 8
PROMPTS = [f"a {colour} circle" for colour in ("red", "green", "blue", "black", "white", "pink")]
# the parts that fit: latents of codec=pixels, embeddings of text=hashed
FITTING = (
    *("codec=pixels", "codec.fold=4", "text=hashed", f"text.width={WIDTH}"),
    *(f"text.length={LENGTH}", f"teacher.width={LUNE_WIDTH}", f"data.image_size={4 * SIDE}"),
)


def tensors(dtype: torch.dtype = torch.float16) -> dict[str, dict[str, Any]]:
    """Part -> the content of its file, of COUNT rows."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(COUNT, *shape, generator=generator).to(dtype)

    embedded = HashedWords(WIDTH, LENGTH).encode(PROMPTS)
    maps = normal(len(T_BUCKETS), 64).float().softmax(-1).to(dtype).unflatten(-1, (8, 8))
    times = torch.tensor(T_BUCKETS)
    encodings = {"latents": normal(48, SIDE, SIDE), "t5_embeds": embedded.tokens.to(dtype)}
    encodings |= {"clip_pooled": embedded.pooled.to(dtype), "prompts": PROMPTS}
    lune = {"features": normal(len(T_BUCKETS), LUNE_WIDTH), "t_buckets": times}
    sol = {"stats": normal(len(T_BUCKETS), 3), "spatial": maps, "t_buckets": times}
    parts = {"encodings": encodings, "lune": lune, "sol": sol}
    return {name: {**part, "dtype": dtype} for name, part in parts.items()}


def write(root: Path, **changes: dict[str, Any]) -> Path:
    """encodings.pt, lune.pt, sol.pt and meta.pt; `changes` of a part replace its keys."""
    root.mkdir(parents=True)
    for name, part in tensors().items():
        torch.save({**part, **changes.get(name, {})}, root / f"{name}.pt")
    torch.save({"name": "circles"}, root / "meta.pt")
    return root


def write_shards(root: Path, size: int = 4, completed: int | None = None) -> Path:
    """The same rows in shards, and a state of `completed` shards (None: all)."""
    root.mkdir(parents=True)
    count = -(-COUNT // size)
    for name, part in tensors().items():
        (root / name).mkdir()
        for k in range(count):
            rows = slice(k * size, (k + 1) * size)
            cut = {
                key: value[rows] if key not in ("t_buckets", "dtype") else value
                for key, value in part.items()
            }
            torch.save(
                {key: v.clone() if isinstance(v, Tensor) else v for key, v in cut.items()},
                root / name / f"shard_{k:04d}.pt",
            )
    state = {"name": "circles", "n_samples": COUNT, "shard_size": size, "build_lune": True}
    state |= {"build_sol": True, "completed_shards": [*range(count)][:completed]}
    (root / "state.json").write_text(json.dumps(state))
    return root
