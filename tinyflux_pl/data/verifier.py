"""The base of verifiers, which read pictures back and compare them with their prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from tinyflux_pl.core.reading import Reading


class PromptVerifier(ABC):
    """Compares pictures with the claims of their prompts; implements core.protocols.Verifier."""

    claims: tuple[str, ...]

    @abstractmethod
    def check(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Claims that each picture satisfies: (B,) bool for every claim, and for `all` of them."""

    def reading(self, images: Tensor) -> Reading | None:
        """Readable share and mean fit of the pictures; by default unknown."""
        return None

    def stated(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Claims that each prompt makes: (B,) bool for every claim.

        By default every prompt makes all.
        """
        return {claim: torch.ones(len(prompts), dtype=torch.bool) for claim in self.claims}
