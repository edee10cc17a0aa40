"""Autoencoders in the layout of the original files (ae.safetensors, or inside a whole checkpoint)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.core.release import Original

PREFIXES = ("first_stage_model.", "vae.")  # of an autoencoder inside a whole checkpoint


def to_diffusers(tensors: dict[str, Tensor], structure: dict[str, Any]) -> dict[str, Tensor]:
    """By diffusers' own converter, which reads what it knows; CheckpointMismatch if it left anything behind."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    prefix = next((p for p in PREFIXES if any(key.startswith(p) for key in tensors)), "")
    own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    made = convert_ldm_vae_checkpoint(dict(own), structure)
    if len(made) != len(own):
        what = f"{len(own)} tensors of an autoencoder, of which {len(made)} have a place in this one"
        raise CheckpointMismatch(what, where="autoencoder", cure="give the structure of the same release")
    return made


ORIGINAL = Original("encoder.down.0.", to_diffusers)
