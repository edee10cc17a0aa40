"""Autoencoders in the layout of the original files, alone or inside a whole checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.weights import key_prefixes, tensor_files
from tinyflux_pl.weights.key_layout import KeyLayout

PREFIXES = ("first_stage_model.", "vae.")  # of an autoencoder inside a whole checkpoint
# by FLUX.2's files
MOVED = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}
# of diffusers' first years
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
COUNTED = "bn.num_batches_tracked"  # of FLUX.2's statistics; torch, too, does without it


def to_diffusers(tensors: dict[str, Tensor], structure: dict[str, Any]) -> dict[str, Tensor]:
    """Convert tensors of either layout to that of diffusers.

    The original layout is converted by diffusers' converter, which drops keys that it does not
    know. FLUX.2's own keys are moved before.
    """
    if not any("encoder.down.0." in key for key in tensors):
        return {_renamed(key): value for key, value in tensors.items()}
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    moved = {_moved(key): value for key, value in tensors.items()}
    converted = convert_ldm_vae_checkpoint(dict(moved), structure)
    converted |= {key: value for key, value in moved.items() if key.startswith("bn.")}
    if converted.get("bn.running_mean") is not None:
        converted.setdefault(COUNTED, torch.tensor(0))
    used = {_memory(value) for value in converted.values() if value is not None}
    return converted | {key: value for key, value in moved.items() if _memory(value) not in used}


def holds_autoencoder(file: Path) -> bool:
    """True if a file of weights contains an autoencoder, in either layout, alone or not."""
    keys = key_prefixes.unwrapped(tensor_files.shapes(file), str(file))
    return any(f"{prefix}decoder.conv_in.weight" in keys for prefix in ("", *PREFIXES))


def _memory(value: Tensor) -> tuple[int, int]:
    """Identity of a tensor's storage, equal for a view of all of it, on the meta device too."""
    return value.untyped_storage()._cdata, value.storage_offset() * value.element_size()


def _renamed(key: str) -> str:
    """A key of diffusers, with the attention's projections under their current names."""
    match = re.fullmatch(r"(.*\.attentions\.\d+\.)(query|key|value|proj_attn)(\.\w+)", key)
    return f"{match[1]}{OLD_ATTENTION[match[2]]}{match[3]}" if match else key


def _moved(key: str) -> str:
    return next(
        (new + key.removeprefix(old) for old, new in MOVED.items() if key.startswith(old)), key
    )


ORIGINAL = KeyLayout("", to_diffusers, PREFIXES)
