"""The published text head: token states of a language model -> one embedding."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.nets.bezier import BezierActivation


class TextHead(nn.Module):
    """States (B, L, W) -> (B, E): the mean over all tokens, then two Bezier layers.

    Padding is included, as published.
    """

    def __init__(self, width: int = 768, hidden: int = 512, out: int = 1024) -> None:
        super().__init__()
        self.ouput_layer = nn.Sequential(  # sic: the key of published files
            nn.Linear(width, 5 * hidden),
            nn.LayerNorm(5 * hidden),
            BezierActivation(),
            nn.Linear(hidden, 5 * out),
            nn.LayerNorm(5 * out),
            BezierActivation(),
        )

    def forward(self, states: Float[Tensor, "b l w"]) -> Float[Tensor, "b e"]:
        """The embedding."""
        return self.ouput_layer(states.mean(1))
