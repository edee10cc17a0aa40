"""Small random autoencoders, made in memory without files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tinyflux_pl.core.random_weights import drawn_from


def small(structure: Mapping[str, Any]) -> dict[str, Any]:
    """The structure with one layer of 8 channels a level: latents keep their shape."""
    levels = len(structure.get("block_out_channels", [8]))
    size = {"block_out_channels": [8] * levels, "layers_per_block": 1, "norm_num_groups": 4}
    structure_keys = {k: v for k, v in structure.items() if k != "decoder_block_out_channels"}
    return {**structure_keys, **size}


def network(skeleton: nn.Module, structure: Mapping[str, Any], seed: int) -> Any:
    """The skeleton's class on random weights, frozen."""
    with drawn_from(seed, "simulated/codec"):
        return type(skeleton)(**structure).eval().requires_grad_(False)
