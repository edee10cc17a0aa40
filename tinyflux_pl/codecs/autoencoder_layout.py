"""Autoencoders in the layout of the original files (ae.safetensors, or inside a whole checkpoint)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.release import Original
from tinyflux_pl.core.weight_files import tensor_shapes

PREFIXES = ("first_stage_model.", "vae.")  # of an autoencoder inside a whole checkpoint
MOVED = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}  # by FLUX.2's files
COUNTED = "bn.num_batches_tracked"  # of FLUX.2's statistics; torch, too, does without it


def to_diffusers(tensors: dict[str, Tensor], structure: dict[str, Any]) -> dict[str, Tensor]:
    """By diffusers' own converter, which leaves out what it does not know; FLUX.2's own keys are moved before."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    own = {_moved(key): value for key, value in tensors.items()}
    made = convert_ldm_vae_checkpoint(dict(own), structure)
    made |= {key: value for key, value in own.items() if key.startswith("bn.")}
    if made.get("bn.running_mean") is not None:
        made.setdefault(COUNTED, torch.tensor(0))
    kept = {value.data_ptr() for value in made.values() if value is not None}
    return made | {key: value for key, value in own.items() if value.data_ptr() not in kept}


def holds_autoencoder(file: Path) -> bool:
    """Whether a safetensors file holds an autoencoder, alone or inside a whole checkpoint, in either layout."""
    keys = tensor_shapes(file)
    return any(f"{prefix}decoder.conv_in.weight" in keys for prefix in ("", *PREFIXES))


def _moved(key: str) -> str:
    return next((new + key.removeprefix(old) for old, new in MOVED.items() if key.startswith(old)), key)


ORIGINAL = Original("encoder.down.0.", to_diffusers, PREFIXES)
