"""Cached rotary embeddings, for positions that do not change between sampling steps."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn


class RotationCache:
    """Stands in for the forward pass of a rotary embedding without weights, while sampling.

    Its last result is kept under the key of `set`, which has to decide the positions: comparing the
    positions themselves would wait for the device. Outside inference mode, and in a compiled
    network, nothing is kept.
    """

    def __init__(self, embedding: nn.Module) -> None:
        self._run = embedding.forward
        self._key: Hashable = None
        self._cached: tuple[Hashable, Any] | None = None
        embedding.forward = self

    def set(self, *key: Hashable) -> None:
        """Name the positions of the next pass: the shapes that they are made from."""
        self._key = key

    def __call__(self, ids: Tensor) -> Any:
        """The embedding of `ids`, computed or kept."""
        if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
            return self._run(ids)
        key = (self._key, ids.device, ids.dtype, ids.shape)
        if self._cached is None or self._cached[0] != key:
            self._cached = (key, self._run(ids))
        return self._cached[1]
