"""The arguments of a block for a part of its image tokens."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tinyflux_pl.nets.attention import AttentionPrior


def selected(inputs: dict[str, Any], kept: Int[Tensor, "b k"], tokens: int) -> dict[str, Any]:
    """Rotation, mask and prior of all text tokens and of the image tokens `kept`, of `tokens`.

    Text comes first in the rotation (L + N, d/2, 2) or (B, 1, L + N, d/2, 2) and in the mask
    (B, 1, 1, L + N). Streams and whatever has no tokens stay as they are.
    """
    rotation = inputs["rotation"]
    length = rotation.shape[-3] - tokens
    text = torch.arange(length, device=kept.device).expand(len(kept), length)
    joint = torch.cat((text, kept + length), 1)
    if rotation.dim() == 3:
        chosen = rotation[joint][:, None]
    else:
        rows = joint[:, None, :, None, None].expand(-1, -1, -1, *rotation.shape[-2:])
        chosen = rotation.expand(len(kept), -1, -1, -1, -1).gather(2, rows)
    result = {**inputs, "rotation": chosen}
    if inputs.get("key_mask") is not None:
        mask = inputs["key_mask"].expand(len(kept), -1, -1, -1)
        result["key_mask"] = mask.gather(3, joint[:, None, None])
    if inputs.get("prior") is not None:
        temperature, importance = inputs["prior"]
        result["prior"] = AttentionPrior(temperature, importance.gather(1, kept))
    return result
