"""The contract of verifiers, which compare pictures with their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from tinyflux_pl.core.reading import Reading


@runtime_checkable
class Verifier(Protocol):
    """Compares pictures with their prompts; data.verifier has the base class.

    `check`: True per prompt where the picture satisfies a claim; "all": every claim. `stated`: True
    per prompt that makes a claim. `reading`: None if it has no figures.
    """

    claims: tuple[str, ...]

    def stated(self, prompts: Sequence[str]) -> dict[str, Bool[Tensor, " b"]]: ...
    def check(
        self, images: Float[Tensor, "b 3 h w"], prompts: Sequence[str]
    ) -> dict[str, Bool[Tensor, " b"]]: ...
    def reading(self, images: Float[Tensor, "b 3 h w"]) -> Reading | None: ...
