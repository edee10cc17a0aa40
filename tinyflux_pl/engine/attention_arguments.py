"""The arguments of torch's attention by name, for counting its memory on the meta device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def attention_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *options: Any,
    **named_options: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Query, key, value and mask of a call, a boolean mask as the numbers that kernels read.

    Keep the mask while the call's results are allocated: the kernels do.
    """
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = attn_mask.to(query.dtype)
    return query, key, value, attn_mask
