"""Target sequences as latents, normalised by each channel's mean and deviation."""

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import SpecMismatch
from tinyflux_pl.core.protocols import Codec
from tinyflux_pl.core.sequence_pairs import Moments
from tinyflux_pl.core.specs import LatentSpec


class Identity(Codec):
    """Codec of sequences: (B, D, N, 1) in and out, normalised by the training data's `moments`.

    One token is one latent cell. `tokens` is the length N that targets were trained with. `ids` (N,
    A) are their position ids if all targets share them; None if each has its own. Raises
    SpecMismatch for tokens of another width.
    """

    name = "identity"
    bounds = (-math.inf, math.inf)  # decoded values are not pictures

    def __init__(
        self,
        tokens: int,
        mean: list[float],
        spread: list[float],
        ids: list[list[float]] | None = None,
    ) -> None:
        self.tokens, self.moments, self.ids = tokens, Moments(tuple(mean), tuple(spread)), ids
        self.latent_spec = LatentSpec(len(mean), 1)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the latents: a sequence is one column."""
        return self.tokens, 1

    def encode(self, images: Float[Tensor, "b d n w"]) -> Float[Tensor, "b d n w"]:
        """Targets -> latents."""
        self._require_width(images)
        return self.moments.normalised(images.movedim(1, -1)).movedim(-1, 1)

    def decode(self, latents: Float[Tensor, "b d n w"]) -> Float[Tensor, "b d n w"]:
        """Latents -> targets."""
        self._require_width(latents)
        return self.moments.restored(latents.movedim(1, -1)).movedim(-1, 1)

    def _require_width(self, values: Tensor) -> None:
        if values.shape[1] != self.latent_spec.channels:
            raise SpecMismatch(
                f"tokens of {values.shape[1]} channels, this codec expects "
                f"{self.latent_spec.channels}",
                where="codec identity",
                cure="give targets as wide as those of training",
            )

    def config(self) -> dict[str, Any]:
        """The constructor's arguments: they rebuild this codec."""
        return {"tokens": self.tokens, **self.moments.plain(), "ids": self.ids}

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the latents."""
        return {"codec": self.name, "tokens": self.tokens, **self.moments.plain()}
