"""FLUX.1's weights in the layout of Black Forest Labs' files, to write files for tests."""

import torch
from torch import Tensor

from tinyflux_pl.denoisers.flux1_layout import BLOCKS, ENDS, MODULATION, STACKED, swapped


def to_original(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_diffusers`; ValueError for a key that FLUX.1 does not have."""
    ends = {new: old for old, new in ENDS.items()}
    blocks = {
        (new, inner): (old, name)
        for old, (new, names) in BLOCKS.items()
        for name, inner in names.items()
    }
    stacked = {
        (BLOCKS[kind][0], part): (kind, name, index)
        for (kind, name), parts in STACKED.items()
        for index, part in enumerate(parts)
    }
    converted: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for key, value in tensors.items():
        stem, _, leaf = key.rpartition(".")
        block, number, inner = (*stem.split(".", 2), "", "")[:3]
        if stem in ends:
            converted[f"{ends[stem]}.{leaf}"] = (
                swapped(value) if ends[stem] == MODULATION else value
            )
        elif (block, inner) in stacked:
            kind, name, index = stacked[block, inner]
            stacks.setdefault(f"{kind}.{number}.{name}.{leaf}", {})[index] = value
        elif (block, inner) in blocks:
            kind, name = blocks[block, inner]
            converted[f"{kind}.{number}.{name}.{'scale' if name.endswith('_norm') else leaf}"] = (
                value
            )
        else:
            raise ValueError(f"FLUX.1 has no {key}")
    return converted | {
        key: torch.cat([parts[index] for index in sorted(parts)]) for key, parts in stacks.items()
    }
