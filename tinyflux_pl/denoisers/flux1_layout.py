"""FLUX.1's weights: conversion between Black Forest Labs' layout and that of diffusers.

diffusers' own converter knows one width (3072) and drops keys that it does not know; this one takes
the width from the tensors. `tests/families` compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.weights.key_layout import KeyLayout

# original -> diffusers, without .weight and .bias; {i} is a block's number
ENDS = {
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "txt_in": "context_embedder",
    "img_in": "x_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
SINGLE = {
    "modulation.lin": "norm.linear",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
    "linear2": "proj_out",
}
# one original tensor, several of diffusers stacked along rows
STACKED = {
    ("double_blocks", "img_attn.qkv"): ("attn.to_q", "attn.to_k", "attn.to_v"),
    ("double_blocks", "txt_attn.qkv"): ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    ("single_blocks", "linear1"): ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}
BLOCKS = {
    "double_blocks": ("transformer_blocks", DOUBLE),
    "single_blocks": ("single_transformer_blocks", SINGLE),
}
# shift above scale there, scale above shift in diffusers
MODULATION = "final_layer.adaLN_modulation.1"


def swapped(rows: Tensor) -> Tensor:
    """The two halves of a tensor's rows, exchanged."""
    return torch.cat(rows.chunk(2)[::-1])


def to_diffusers(
    tensors: dict[str, Tensor], structure: dict[str, Any] | None = None
) -> dict[str, Tensor]:
    """From the original layout; unknown keys are kept as they are."""
    converted: dict[str, Tensor] = {}
    for key, value in tensors.items():
        stem, _, leaf = key.rpartition(".")
        block = re.fullmatch(r"(double_blocks|single_blocks)\.(\d+)\.(.+)", stem)
        if stem in ENDS:
            converted[f"{ENDS[stem]}.{leaf}"] = swapped(value) if stem == MODULATION else value
        elif block is None:
            converted[key] = value
        elif (block[1], block[3]) in STACKED:
            names = STACKED[block[1], block[3]]
            for name, part in zip(names, _parts(value, len(names)), strict=True):
                converted[f"{BLOCKS[block[1]][0]}.{block[2]}.{name}.{leaf}"] = part
        elif block[3] in (inside := BLOCKS[block[1]][1]):
            new_leaf = "weight" if leaf == "scale" else leaf
            converted[f"{BLOCKS[block[1]][0]}.{block[2]}.{inside[block[3]]}.{new_leaf}"] = value
        else:
            converted[key] = value
    return converted


def to_original(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_diffusers`, equal to the bit; KeyError for a network of other layers."""
    rest = dict(tensors)
    original: dict[str, Tensor] = {}

    def move(name: str, key: str, change: Callable[[Tensor], Tensor] = Tensor.contiguous) -> None:
        for leaf in ("weight", "bias"):
            if (old := f"{name}.{leaf}") in rest:
                ends_as_scale = leaf == "weight" and key.endswith("_norm")
                original[f"{key}.{'scale' if ends_as_scale else leaf}"] = change(rest.pop(old))

    for key, name in ENDS.items():
        move(name, key, swapped if key == MODULATION else Tensor.contiguous)
    numbers = {match[1] for name in rest if (match := re.match(r"(\w+\.\d+)\.", name))}
    kinds = {name: (key, parts) for key, (name, parts) in BLOCKS.items()}
    for block in sorted(numbers):
        kind, number = block.split(".")
        key, layers = kinds[kind]
        for (of, stacked), parts in STACKED.items():
            if of != key:
                continue
            for leaf in ("weight", "bias"):
                names = [f"{block}.{part}.{leaf}" for part in parts]
                if names[0] in rest:
                    joined = torch.cat([rest.pop(name) for name in names])
                    original[f"{key}.{number}.{stacked}.{leaf}"] = joined
        for layer, name in layers.items():
            move(f"{block}.{name}", f"{key}.{number}.{layer}")
    if rest:
        raise KeyError(f"no original name of {sorted(rest)[:3]}")
    return original


def _parts(stacked: Tensor, count: int) -> list[Tensor]:
    """Split into query, key and value, and if present the MLP part, four times as high as each."""
    if count == 3:
        return list(stacked.chunk(3))
    width = stacked.shape[0] // 7
    return list(stacked.split((width, width, width, 4 * width)))


def original_layers(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Original name of a block's layer -> diffusers' names of its parts, from top to bottom.

    Layers whose rows are in another order (MODULATION) are left out.
    """
    numbers = sorted({block[1] for name in names if (block := re.match(r"\w+\.(\d+)\.", name))})
    layers: dict[str, tuple[str, ...]] = {}
    for old, (new, inside) in BLOCKS.items():
        kinds = {name: (inner,) for name, inner in inside.items()}
        kinds |= {name: parts for (kind, name), parts in STACKED.items() if kind == old}
        for number in numbers:
            for name, parts in kinds.items():
                layers[f"{old}.{number}.{name}"] = tuple(f"{new}.{number}.{p}" for p in parts)
    present = set(names)
    return {name: parts for name, parts in layers.items() if present.issuperset(parts)}


ORIGINAL = KeyLayout("double_blocks.", to_diffusers)
