"""An encoder of transformers with more words than its embedding table has rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.text.learned_words import LearnedWord


def add_tokens(tokenizer: Any, words: Sequence[LearnedWord]) -> int:
    """Give every piece of the words an id; returns the first.

    ConfigError for one that the tokenizer has already.
    """
    from tokenizers import AddedToken

    vocabulary = tokenizer.get_vocab()
    pieces = [piece for word in words for piece in word.pieces]
    if taken := [piece for piece in pieces if piece in vocabulary]:
        raise ConfigError(
            f"{taken[0]!r} is a token of this encoder already",
            where="method.word",
            cure=f"another word, such as <{taken[0].strip('<>')}-1>",
        )
    first = len(tokenizer)
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    ids = tokenizer.convert_tokens_to_ids(pieces)
    if ids != list(range(first, first + len(pieces))) or first <= max(vocabulary.values()):
        what = "the ids of this tokenizer have gaps, in which no word can be added"
        raise ConfigError(what, where="method.word", cure="a release with a plain vocabulary")
    return first


class ExtendedEncoder(nn.Module):
    """`network` with the vectors of `words` for the ids from `first` on.

    The network itself is shown an ordinary id there: CLIP takes the highest for a text's end. The
    words' vectors are no parameters of this module.
    """

    def __init__(
        self, network: Any, tokenizer: Any, table: str, words: Sequence[LearnedWord]
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.first = add_tokens(tokenizer, words)
        self.words, self.table = tuple(words), table
        special = set(tokenizer.all_special_ids)
        self.ordinary = next(i for i in range(self.first) if i not in special)
        self._ids: Tensor | None = None
        weight = network.get_input_embeddings().weight
        for module in network.modules():  # T5 has the same table in two places
            if isinstance(module, nn.Embedding) and module.weight is weight:
                module.register_forward_hook(self._replace)

    def forward(self, input_ids: Tensor, **options: Any) -> Any:
        """The network's output, for ids that may be those of the words."""
        self._ids = input_ids
        plain = torch.where(input_ids < self.first, input_ids, self.ordinary)
        return self.network(input_ids=plain, **options)

    def _replace(self, module: nn.Module, inputs: Any, rows: Tensor) -> Tensor:
        assert self._ids is not None
        new = self._ids >= self.first
        vectors = torch.cat([word.tables[self.table] for word in self.words]).to(rows)
        return torch.where(new[..., None], vectors[(self._ids - self.first).clamp_min(0)], rows)
