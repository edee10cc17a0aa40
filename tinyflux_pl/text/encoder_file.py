"""A text encoder inside a single file: which keys are its own, and how they come to transformers' names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core import files
from tinyflux_pl.core.stored_weights import plain
from tinyflux_pl.core.weight_files import tensor_shapes

PARTS = {  # what its keys begin with: in SDXL's file, in those that image tools pack, in a file of its own
    "clip_l": ("conditioner.embedders.0.transformer.", "text_encoders.clip_l.transformer.", ""),
    "clip_g": ("conditioner.embedders.1.model.", "text_encoders.clip_g.transformer.", ""),
    "t5xxl": ("text_encoders.t5xxl.transformer.", ""),
}
ALWAYS = re.compile(r"(text_model\.embeddings\.token_embedding|token_embedding|shared)\.weight")
UNREAD = re.compile(r"(^|\.)(logit_scale|position_ids)$")  # of contrastive training; a count from 0
TIED = ("shared.weight", "encoder.embed_tokens.weight")  # one table of T5, of which files hold either name or both
OPEN_CLIP = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def prefix_of(file: Path, part: str) -> str | None:
    """What an encoder's keys (clip_l, clip_g, t5xxl) begin with in a safetensors file; None if it is not there."""
    keys = tensor_shapes(file)
    for prefix in PARTS.get(part, ()):
        if any(key.startswith(prefix) and ALWAYS.fullmatch(key, len(prefix)) for key in keys):
            return prefix
    return None


def read(file: Path, part: str, skeleton: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    """An encoder's weights out of a file, under the names of `skeleton`, which is of transformers' class.

    What the reference leaves unread is left out; all else is there, to be judged. Raises what
    core.stored_weights.plain does.
    """
    prefix = prefix_of(file, part) or ""
    held = {k.removeprefix(prefix): v for k, v in files.read_tensors(file).items() if k.startswith(prefix)}
    own = {key: value for key, value in plain(held, dtype, str(file)).items() if not UNREAD.search(key)}
    if "positional_embedding" in own:
        own = from_open_clip(own)
    if part == "clip_l":  # no file has its own projection: SDXL and FLUX.1 read none, SD3.5 the identity
        own.pop("text_projection.weight", None)
        if hasattr(skeleton, "text_projection"):
            own["text_projection.weight"] = torch.eye(*skeleton.text_projection.weight.shape)
    for one, other in (TIED, TIED[::-1]):
        if part == "t5xxl" and other in own:
            own.setdefault(one, own[other])
    if part != "t5xxl" and not hasattr(skeleton, "text_model"):  # a CLIP without projection has shorter names
        own = {key.removeprefix("text_model."): value for key, value in own.items()}
    return own


def from_open_clip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's keys -> transformers': query, key and value apart, the projection transposed."""
    made: dict[str, Tensor] = {}
    for key, value in tensors.items():
        stem, _, leaf = key.rpartition(".")
        block = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", stem)
        layer = f"text_model.encoder.layers.{block[1]}" if block else ""
        if key == "text_projection":
            made["text_projection.weight"] = value.T.contiguous()
        elif block and block[2] == "attn" and leaf in ("in_proj_weight", "in_proj_bias"):
            for name, part in zip("qkv", value.chunk(3), strict=True):
                made[f"{layer}.self_attn.{name}_proj.{leaf.removeprefix('in_proj_')}"] = part
        elif block and block[2] in OPEN_CLIP_LAYER:
            made[f"{layer}.{OPEN_CLIP_LAYER[block[2]]}.{leaf}"] = value
        else:
            made[OPEN_CLIP.get(key, key)] = value
    return made
