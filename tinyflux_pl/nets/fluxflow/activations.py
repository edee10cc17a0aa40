"""The activations of FluxFlow's branches: Bezier curves, and alternatives to compare with."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.nets.bezier import FAN, BezierActivation

# channels before an activation for each one after it
FANS = {"bezier": FAN, "swiglu": 2, "silu": 1}


class SwiGlu(nn.Module):
    """Channels C = 2F -> F: silu of the first half, times the second (Shazeer 2020, 2002.05202).

    Dimension 1 of maps (B, C, H, W), the last of smaller inputs.
    """

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The activation."""
        gate, value = x.chunk(2, 1 if x.ndim == 4 else -1)
        return F.silu(gate) * value


def require_known(name: str) -> None:
    """Raise ConfigError for an activation of another name."""
    if name not in FANS:
        raise ConfigError(
            f"there is no activation {name!r}", where="model.activation", cure=" or ".join(FANS)
        )


def activation(name: str) -> nn.Module:
    """A new activation.

    Bezier: sigmoid of the position, silu of the control points; planar, so that each of a value's
    five inputs is one plane of memory.
    """
    require_known(name)
    if name == "bezier":
        return BezierActivation("sigmoid", "silu", planar=True)
    return SwiGlu() if name == "swiglu" else nn.SiLU()
