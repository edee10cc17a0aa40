"""Text encoders whose network trains with the denoiser: they return ids, which can be cached."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tinyflux_pl.core.protocols import TextEncoder
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import TextEmbeddings

BASE = 256  # ids are two digits: fp16 and bf16, in which caches are stored, hold each exactly
LARGEST_VOCABULARY = BASE * BASE


def as_digits(ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l 2"]:
    """Ids below 65,536 as two digits to the base of 256."""
    return torch.stack((ids // BASE, ids % BASE), -1).float()


def as_ids(digits: Float[Tensor, "b l 2"]) -> Int[Tensor, "b l"]:
    """The inverse of `as_digits`."""
    high, low = digits.round().long().unbind(-1)
    return high * BASE + low


class EmbeddedIds(nn.Module):
    """The network of a trainable text encoder: text of ids -> TextEmbeddings.

    A submodule of the denoiser (denoisers.text_network), so that it is averaged, saved and resumed
    with it. `network` returns tokens (B, L, D) and pooled (B, P) for ids and mask (B, L).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, text: TextEmbeddings) -> TextEmbeddings:
        """The embeddings with the network's current weights."""
        tokens, pooled = self.network(as_ids(text.tokens), text.mask)
        return TextEmbeddings(tokens, text.mask, pooled)


class TokenIds(TextEncoder):
    """Base of text encoders that train: `encode` gives ids as tokens (B, L, 2), pooled (B, 1) of 0.

    Embeddings of a network that trains are others at each step, so none are cached: the ids are,
    and the network reads them inside the denoiser.
    """

    length: int
    device: torch.device

    @property
    def text_spec(self) -> TextSpec:  # type: ignore[override]
        """Two digits per token."""
        return TextSpec(width=2, length=self.length, pooled=1)

    @abstractmethod
    def ids(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, length)."""

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Prompts -> their ids."""
        ids, mask = self.ids(prompts)
        text = TextEmbeddings(as_digits(ids), mask.bool(), torch.zeros(len(ids), 1))
        return text.to(self.device)

    def null(self) -> TextEmbeddings:
        """The unconditional: the empty prompt."""
        return self.encode([""])
