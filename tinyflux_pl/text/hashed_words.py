"""Frozen hashed word embeddings: the default text encoder, which needs no files."""

import hashlib
import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import PromptLength, TextEmbeddings
from tinyflux_pl.text.learned_words import WordReader
from tinyflux_pl.text.words import words_of

TOKENS, POOLED = "hashed", "hashed_pooled"  # tables of learnt words


@lru_cache(maxsize=1 << 16)
def word_vector(word: str, width: int) -> Float[Tensor, " d"]:
    """The word's own gaussian vector (D,), unit variance, the same in every process."""
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    identity = int.from_bytes(digest, "big") >> 1
    return torch.randn(width, generator=rng.generator(0, "hashed_words", identity))


def position_code(length: int, width: int) -> Float[Tensor, "l d"]:
    """Sinusoids of the word's index: half sine, half cosine, periods from 2 pi to 2 pi * 1000."""
    rates = torch.exp(-math.log(1000.0) * torch.arange(width // 2) / max(width // 2 - 1, 1))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


class HashedWords(WordReader):
    """Word vectors seeded by the word's hash, plus a position code; any prompt has an embedding.

    tokens (B, length, width); mask True on words, and on one token where there is no word; pooled
    (B, width): the sum of the vectors of words and of pairs of neighbours, so that order tells,
    with norm sqrt(width). A prompt of more than `length` words is cut there, with a warning;
    `pooled` is of all of them, unless the prompt is ASCII. A learnt word has a vector of its own
    in the tokens and another in the pooled sum; its neighbours' pairs stay hashed.
    """

    name = "hashed"

    def __init__(self, width: int = 128, length: int = 24) -> None:
        if width < 2 or width % 2 or length < 1:
            raise ConfigError(
                f"width {width}, length {length}",
                where="text",
                cure="use an even width and a length of at least 1",
            )
        self.width, self.length = width, length
        self.text_spec = TextSpec(width=width, length=length, pooled=width)
        self.device = torch.device("cpu")
        self._positions = position_code(length, width)

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Prompts -> embeddings padded to `length`."""
        tokens = torch.zeros(len(prompts), self.length, self.width)
        mask = torch.zeros(len(prompts), self.length, dtype=torch.bool)
        pooled = torch.zeros(len(prompts), self.width)
        learned, learned_pooled = self._table(TOKENS), self._table(POOLED)
        for row, prompt in enumerate(self._expanded(prompts)):
            every = self._read(prompt)
            words = every[: self.length]
            vectors = torch.stack([self._vector(word, learned) for word in words])
            tokens[row, : len(words)] = vectors + self._positions[: len(words)]
            mask[row, : len(words)] = True
            # ASCII is cut as ever, stored embeddings being of it; signs of unspaced scripts are
            # many
            summed = words if prompt.isascii() else every
            # a space cannot be inside a word, so a pair never collides with one
            named = [*summed, *(f"{a} {b}" for a, b in pairwise(summed))]
            pooled[row] = torch.stack([self._vector(name, learned_pooled) for name in named]).sum(0)
        pooled = torch.nn.functional.normalize(pooled, dim=-1) * math.sqrt(self.width)
        return TextEmbeddings(tokens.to(self.device), mask.to(self.device), pooled.to(self.device))

    def word_widths(self) -> dict[str, int]:
        """A vector among the tokens, and one in the pooled sum."""
        return {TOKENS: self.width, POOLED: self.width}

    def word_vectors(self, word: str) -> dict[str, Tensor]:
        """The hashed vectors of the word's parts."""
        parts = words_of(word) or [""]
        vectors = torch.stack([word_vector(part, self.width) for part in parts])
        return {TOKENS: vectors, POOLED: vectors}

    def require_word(self, word: str) -> None:
        """Raise ConfigError unless it is one word as this encoder divides texts."""
        if words_of(word) != [word]:
            parts = "".join(words_of(word)) or "pinkish"
            raise ConfigError(
                f"{word!r} is not read as one word of letters and digits in lower case",
                where="method.word",
                cure=f"method.word={parts}",
            )

    def _table(self, name: str) -> dict[str, Tensor]:
        """Piece of a learnt word -> its vector in a table."""
        return {
            piece: vector.cpu()
            for word in self.words
            for piece, vector in zip(word.pieces, word.tables[name], strict=True)
        }

    def _vector(self, word: str, learned: dict[str, Tensor]) -> Tensor:
        return learned[word] if word in learned else word_vector(word, self.width)

    @torch.no_grad()
    def null(self) -> TextEmbeddings:
        """The unconditional: the empty prompt, one constant token."""
        return self.encode([""])

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """Words of each prompt that are read, and that are cut off."""
        counts = [len(words_of(prompt)) for prompt in self._expanded(prompts)]
        return [PromptLength(min(n, self.length), max(n - self.length, 0)) for n in counts]

    def masks(self, prompts: Sequence[str]) -> Bool[Tensor, "b l"]:
        """True on words, and on one token where there is no word."""
        read = torch.tensor([max(length.read, 1) for length in self.lengths(prompts)])
        return torch.arange(self.length) < read[:, None]

    def config(self) -> dict[str, Any]:
        """The constructor's arguments: they rebuild this encoder."""
        return {"width": self.width, "length": self.length}

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the embeddings."""
        identity = {"text": self.name, "version": 1, **self.config()}
        return identity | self._words_fingerprint()

    def to(self, device: Any) -> "HashedWords":
        """Set the device of the returned embeddings."""
        self.device = torch.device(device)
        return self

    def _read(self, prompt: str) -> list[str]:
        words = words_of(prompt) or [""]
        if len(words) > self.length:
            warnings.warn(
                f"a prompt of {len(words)} words is cut at {self.length}: {prompt[:60]!r}",
                stacklevel=3,
            )
        return words
