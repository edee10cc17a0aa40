"""Learned words: their vectors, and the encoders that can read them."""

from __future__ import annotations

import copy
import hashlib
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.core.protocols import TextEncoder


class LearnedWord(nn.Module):
    """A word's vectors (n, width) in fp32, one parameter for each of an encoder's tables.

    In a prompt it is read as n tokens. Textual inversion, Gal et al. 2022 (2208.01618).
    """

    def __init__(self, word: str, widths: Mapping[str, int], vectors: int = 1) -> None:
        super().__init__()
        self.word, self.vectors = word, vectors
        shapes = {name: (vectors, width) for name, width in widths.items()}
        tables = {name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
        self.tables = nn.ParameterDict(tables)

    @property
    def pieces(self) -> list[str]:
        """The tokens that the word is read as."""
        return [self.word, *(f"{self.word}x{i}" for i in range(1, self.vectors))]

    def expanded(self, prompt: str) -> str:
        """The prompt with each occurrence of the word as its pieces."""
        pattern = rf"(?<!\w){re.escape(self.word)}(?!\w)"
        return re.sub(pattern, lambda _: " ".join(self.pieces), prompt)

    @torch.no_grad()
    def fill(self, vectors: Mapping[str, Float[Tensor, "_m _d"]]) -> None:
        """Initialise with an existing word: its vectors in turn, or for a single one their mean."""
        for name, parameter in self.tables.items():
            rows = vectors[name].to(parameter)
            index = torch.arange(self.vectors) % len(rows)
            parameter.copy_(rows.mean(0, keepdim=True) if self.vectors == 1 else rows[index])


class WordReader(TextEncoder):
    """A text encoder that words can be added to, each with vectors in every table."""

    words: tuple[LearnedWord, ...] = ()

    @abstractmethod
    def word_widths(self) -> dict[str, int]:
        """Name -> width of the tables in which a word needs vectors."""
        ...

    @abstractmethod
    def word_vectors(self, word: str) -> dict[str, Float[Tensor, "_n _d"]]:
        """Table -> this encoder's vectors of an existing word."""
        ...

    def tokens_at_once(self) -> dict[str, int]:
        """The most tokens of a prompt that each of `skeletons` reads."""
        return dict.fromkeys(self.skeletons(), self.text_spec.length)

    def require_word(self, word: str) -> None:
        """Raise ConfigError for a text that this encoder cannot read as one word."""

    def with_words(self, words: Sequence[LearnedWord]) -> WordReader:
        """Another encoder that reads these words too, and passes gradients on to their vectors.

        CheckpointMismatch for vectors of other tables, ConfigError as `require_word`.
        """
        expected = self.word_widths()
        for word in words:
            self.require_word(word.word)
            widths = {name: table.shape[-1] for name, table in word.tables.items()}
            if widths != expected:
                raise CheckpointMismatch(
                    f"the word {word.word!r} has vectors {widths}, this encoder reads {expected}",
                    where=f"text: {self.name}",
                    cure="use a word that was learned with this text encoder",
                )
        other = copy.copy(self)
        other.words = (*self.words, *words)
        other._forget()
        return other

    def _forget(self) -> None:
        """Drop everything that depends on the words."""

    def _expanded(self, prompts: Sequence[str]) -> list[str]:
        """Prompts with the pieces of every learned word."""
        expanded = list(prompts)
        for word in self.words:
            expanded = [word.expanded(prompt) for prompt in expanded]
        return expanded

    def _words_fingerprint(self) -> dict[str, object]:
        """Part of the fingerprint: the content of each word's vectors; {} without words."""
        if not self.words:
            return {}
        return {
            "words": {
                word.word: {name: _hash(table) for name, table in word.tables.items()}
                for word in self.words
            }
        }


def _hash(vectors: Tensor) -> str:
    return hashlib.sha256(vectors.detach().cpu().numpy().tobytes()).hexdigest()
