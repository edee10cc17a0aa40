"""FluxFlow's text encoder from scratch, which trains with the denoiser: words -> ids."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import PromptLength
from tinyflux_pl.nets.fluxflow.text_network import BezierTextNetwork
from tinyflux_pl.text.token_ids import LARGEST_VOCABULARY, EmbeddedIds, TokenIds
from tinyflux_pl.text.words import words_of

NOTHING = 0  # the id of padding, and of the one token of an empty prompt


class BezierText(TokenIds):
    """Words (hashed to `vocabulary` rows of a learned table) of at most `length`.

    Two words may share a row: of n words in a prompt language, about n^2 / (2 vocabulary) pairs do.
    """

    name = "bezier"

    def __init__(
        self,
        width: int = 128,
        length: int = 24,
        layers: int = 2,
        heads: int = 4,
        vocabulary: int = 4096,
    ) -> None:
        if min(width, length, layers, heads) < 1 or width % heads:
            raise ConfigError(
                f"width {width}, heads {heads}, layers {layers}, length {length}",
                where="text",
                cure="numbers above 0, and a width that the heads divide",
            )
        if not 2 <= vocabulary <= LARGEST_VOCABULARY:
            cure = f"from 2 to {LARGEST_VOCABULARY}"
            raise ConfigError(f"vocabulary is {vocabulary}", where="text.vocabulary", cure=cure)
        self.width, self.length, self.layers, self.heads = width, length, layers, heads
        self.vocabulary = vocabulary
        self.device = torch.device("cpu")

    @property
    def embedded_spec(self) -> TextSpec:
        """Shapes of the network's output."""
        return TextSpec(width=self.width, length=self.length, pooled=self.width)

    def trained_network(self) -> nn.Module:
        """Newly initialised."""
        sizes = (self.vocabulary, self.width, self.length, self.layers, self.heads)
        return EmbeddedIds(BezierTextNetwork(*sizes))

    def ids(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, length); a longer prompt is cut, with a warning."""
        ids = torch.zeros(len(prompts), self.length, dtype=torch.long)
        mask = torch.zeros(len(prompts), self.length, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            words = words_of(prompt)
            if len(words) > self.length:
                warnings.warn(
                    f"a prompt of {len(words)} words is cut at {self.length}: {prompt[:60]!r}",
                    stacklevel=3,
                )
            numbers = [self._id(word) for word in words[: self.length]] or [NOTHING]
            ids[row, : len(numbers)] = torch.tensor(numbers)
            mask[row, : len(numbers)] = True
        return ids, mask

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """Words of each prompt that are read, and that are cut off."""
        counts = [len(words_of(prompt)) for prompt in prompts]
        return [PromptLength(min(n, self.length), max(n - self.length, 0)) for n in counts]

    def config(self) -> dict[str, Any]:
        """The constructor's arguments: they rebuild this encoder."""
        names = ("width", "length", "layers", "heads", "vocabulary")
        return {name: getattr(self, name) for name in names}

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the ids."""
        return {
            "text": self.name,
            "version": 1,
            "length": self.length,
            "vocabulary": self.vocabulary,
        }

    def to(self, device: torch.device | str) -> BezierText:
        """Set the device of the ids."""
        self.device = torch.device(device)
        return self

    def _id(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        return 1 + int.from_bytes(digest, "big") % (self.vocabulary - 1)
