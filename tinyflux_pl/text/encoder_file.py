"""Select a text encoder's keys in a file or folder, and convert them to transformers' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.weights import key_prefixes, tensor_files
from tinyflux_pl.weights.dequantize import plain

# what its keys begin with: in SDXL's file, in those that image tools pack, in a file of its own
PARTS = {
    "clip_l": ("conditioner.embedders.0.transformer.", "text_encoders.clip_l.transformer.", ""),
    "clip_g": ("conditioner.embedders.1.model.", "text_encoders.clip_g.transformer.", ""),
    "t5xxl": ("text_encoders.t5xxl.transformer.", ""),
    "distill_t5": ("",),
    "distilbert": ("distilbert.", ""),
}
ALWAYS = {  # a key that an encoder never lacks
    "t5xxl": re.compile(r"(shared|encoder\.embed_tokens)\.weight"),
    "distill_t5": re.compile(r"final_projection\.0\.weight"),
    "distilbert": re.compile(r"embeddings\.word_embeddings\.weight"),
    **dict.fromkeys(
        ("clip_l", "clip_g"),
        re.compile(r"(text_model\.embeddings\.token_embedding|token_embedding)\.weight"),
    ),
}
# of a chat model
TOWER = re.compile(r"(?:model\.language_model\.|language_model\.model\.|language_model\.|model\.)?")
CHAT = re.compile(rf"((?:text_encoders\.\w+\.transformer\.)?){TOWER.pattern}embed_tokens\.weight")
CHAT_PART = "language_model"  # the name of a chat model's tower, beside those of PARTS
# of contrastive training; a count from 0; a table that is computed; a tokenizer's own file
UNREAD = re.compile(
    r"(^|\.)(logit_scale|position_ids|rotary_emb\.inv_freq)$|^(spiece_model|tekken_model)$"
)
UNUSED = {  # what a release holds beside the encoder: image towers, decoders, heads
    "clip_l": re.compile(r"^(vision_model|visual_projection|visual)\."),
    "clip_g": re.compile(r"^(vision_model|visual_projection|visual)\."),
    "t5xxl": re.compile(r"^(decoder|lm_head)\."),
    "distill_t5": re.compile(r"^(decoder|lm_head)\."),
    "distilbert": re.compile(r"^(vocab_(transform|layer_norm|projector)|(pre_)?classifier)\."),
    CHAT_PART: re.compile(
        r"^(model\.|language_model\.)?(vision_tower|visual|multi_modal_projector|lm_head)\."
    ),
}
# one table of T5, of which files hold either name or both
TIED = {
    "t5xxl": ("shared.weight", "encoder.embed_tokens.weight"),
    "distill_t5": ("encoder.shared.weight", "encoder.encoder.embed_tokens.weight"),
}
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
    """Prefix of an encoder's keys (see PARTS) in a file of weights; None if it is not there."""
    keys = key_prefixes.unwrapped(tensor_files.shapes(file), str(file))
    if part == CHAT_PART:
        return next((match[1] for key in keys if (match := CHAT.fullmatch(key))), None)
    for prefix in PARTS.get(part, ()):
        if any(key.startswith(prefix) and ALWAYS[part].fullmatch(key, len(prefix)) for key in keys):
            return prefix
    return None


def depth(file: Path) -> int:
    """Number of a chat model's layers in a single file: image tools omit unused ones."""
    pattern = re.compile(rf"(?:text_encoders\.\w+\.transformer\.)?{TOWER.pattern}layers\.(\d+)\.")
    keys = key_prefixes.unwrapped(tensor_files.shapes(file), str(file))
    matches = (pattern.match(key) for key in keys)
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def encoder_weights(
    tensors: Mapping[str, Tensor],
    part: str,
    skeleton: Any,
    dtype: torch.dtype,
    where: str,
    *,
    prefix: str,
    alone: bool,
) -> dict[str, Tensor]:
    """An encoder's weights under the names of `skeleton` (a class of transformers).

    Keys that the reference does not read are left out; all others stay, to be checked. `alone`: a
    file without a folder around it. Raises what weights.dequantize.plain does.
    """
    bare = key_prefixes.unwrapped(tensors, where)
    inside = {
        key.removeprefix(prefix): value for key, value in bare.items() if key.startswith(prefix)
    }
    weights = {
        key: v
        for key, v in inside.items()
        if not UNREAD.search(key) and not UNUSED[part].search(key)
    }
    weights = plain(weights, dtype, where)
    expected = skeleton.state_dict()
    if part == CHAT_PART:
        weights = {TOWER.sub("", key, count=1): value for key, value in weights.items()}
        # of a file without the last layers, which has no last state
        if "norm.weight" not in expected:
            weights.pop("norm.weight", None)
        return weights
    if "positional_embedding" in weights:
        weights = from_open_clip(weights)
    # no file has its own projection: SDXL and FLUX.1 read none, SD3.5 the identity
    if part == "clip_l" and alone:
        weights.pop("text_projection.weight", None)
        if "text_projection.weight" in expected:
            weights["text_projection.weight"] = torch.eye(*expected["text_projection.weight"].shape)
    if part not in TIED and "text_projection.weight" not in expected:
        weights.pop("text_projection.weight", None)
    names = TIED.get(part, ())
    for one, other in (names, names[::-1]) if names else ():
        if other in weights:
            weights.setdefault(one, weights[other])
    return {_key_in_skeleton(key, expected): value for key, value in weights.items()}


def _key_in_skeleton(key: str, expected: Mapping[str, Tensor]) -> str:
    """A key under the name that this version of the class has.

    Some versions of it put a name before all, and some do not.
    """
    bare = key.removeprefix("text_model.").removeprefix("distilbert.")
    names = (key, bare, f"text_model.{key}")
    return next((name for name in names if name in expected), key)


def from_open_clip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's keys -> transformers': query, key and value apart, the projection transposed."""
    converted: dict[str, Tensor] = {}
    for key, value in tensors.items():
        stem, _, leaf = key.rpartition(".")
        block = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", stem)
        layer = f"text_model.encoder.layers.{block[1]}" if block else ""
        if key == "text_projection":
            converted["text_projection.weight"] = value.T.contiguous()
        elif block and block[2] == "attn" and leaf in ("in_proj_weight", "in_proj_bias"):
            for name, part in zip("qkv", value.chunk(3), strict=True):
                converted[f"{layer}.self_attn.{name}_proj.{leaf.removeprefix('in_proj_')}"] = part
        elif block and block[2] in OPEN_CLIP_LAYER:
            converted[f"{layer}.{OPEN_CLIP_LAYER[block[2]]}.{leaf}"] = value
        else:
            converted[OPEN_CLIP.get(key, key)] = value
    return converted
