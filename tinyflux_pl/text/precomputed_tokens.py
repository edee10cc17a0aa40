"""Condition sequences as tokens: normalised values followed by position ids."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.protocols import TextEncoder
from tinyflux_pl.core.sequence_pairs import Moments, Pairs
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.core.types import Conditioning, PromptLength, TextEmbeddings


class PrecomputedTokens(TextEncoder):
    """Tokens (B, L, C + axes) read from data: C normalised values, then the position ids.

    Values are normalised by the moments of the training data. The ids travel inside the tokens, so
    that whatever pads, drops or picks tokens keeps each with its position. `pooled` (B, P) is the
    vector beside a condition, normalised; zero where the data has none. `named` finds the pairs
    that captions name; it is not saved, so that a rebuilt encoder reads conditions only. `ids` (L,
    axes) are the position ids that all conditions share, if they do.
    """

    name = "given"
    condition_argument = "condition=FILE.npz"

    def __init__(
        self,
        length: int,
        axes: int,
        mean: list[float],
        spread: list[float],
        vector_mean: list[float],
        vector_spread: list[float],
        ids: list[list[float]] | None = None,
        named: Callable[[Sequence[str]], Pairs] | None = None,
    ) -> None:
        self.length, self.axes = length, axes
        self.moments = Moments(tuple(mean), tuple(spread))
        self.vector_moments = Moments(tuple(vector_mean), tuple(vector_spread))
        self.text_spec = TextSpec(len(mean) + axes, length, len(vector_mean), axes)
        self.ids, self.named = ids, named
        self.device = torch.device("cpu")

    def embeddings(
        self,
        condition: Float[Tensor, "b l c"],
        ids: Float[Tensor, "b l a"],
        mask: Bool[Tensor, "b l"],
        vector: Float[Tensor, "b p"],
    ) -> TextEmbeddings:
        """The conditions of a batch, fp32; padding is zero.

        Raises SpecMismatch for widths not of training.
        """
        widths = {
            "condition": (condition.shape[-1], len(self.moments.mean)),
            "condition_ids": (ids.shape[-1], self.axes),
            "vector": (vector.shape[-1], len(self.vector_moments.mean)),
        }
        for what, (width, expected) in widths.items():
            if width != expected:
                raise SpecMismatch(
                    f"{what} is {width} wide, in training it was {expected}",
                    where="text given",
                    cure="give conditions as wide as those of training",
                )
        tokens = torch.cat((self.moments.normalised(condition.float()), ids.float()), -1)
        tokens = tokens.masked_fill(~mask[..., None], 0)
        pooled = self.vector_moments.normalised(vector.float())
        return TextEmbeddings(tokens, mask, pooled).to(self.device)

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """The conditions that captions name; ConfigError without data to find them in."""
        pairs = self._pairs(prompts)
        return self.embeddings(
            pairs.condition, pairs.condition_ids, pairs.condition_mask, pairs.vector
        )

    def with_target_ids(self, cond: Conditioning, prompts: Sequence[str]) -> Conditioning:
        """Add position ids and mask of the targets that belong to these captions."""
        pairs, device = self._pairs(prompts), cond.text.tokens.device
        return replace(
            cond, target_ids=pairs.target_ids.to(device), target_mask=pairs.target_mask.to(device)
        )

    def _pairs(self, prompts: Sequence[str]) -> Pairs:
        if self.named is None:
            raise ConfigError(
                "this model takes sequences, not prompts",
                where="prompt",
                cure="give a file of conditions: condition=FILE.npz",
            )
        return self.named(prompts)

    def null(self) -> TextEmbeddings:
        """The unconditional: one token of zeros at the origin."""
        spec = self.text_spec
        tokens, pooled = torch.zeros(1, 1, spec.width), torch.zeros(1, spec.pooled)
        return TextEmbeddings(tokens, torch.ones(1, 1, dtype=torch.bool), pooled).to(self.device)

    def lengths(self, prompts: Sequence[str]) -> list[PromptLength]:
        """Every caption names a whole condition, so nothing is cut."""
        return [PromptLength(1, 0) for _ in prompts]

    def config(self) -> dict[str, Any]:
        """The constructor's arguments: they rebuild this encoder."""
        vector = {f"vector_{name}": value for name, value in self.vector_moments.plain().items()}
        return {
            "length": self.length,
            "axes": self.axes,
            **self.moments.plain(),
            **vector,
            "ids": self.ids,
        }

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the embeddings."""
        return {
            "text": self.name,
            **{name: value for name, value in self.config().items() if name != "ids"},
        }

    def to(self, device: Any) -> "PrecomputedTokens":
        """Set the device of the returned embeddings."""
        self.device = torch.device(device)
        return self
