"""adaLN modulation: shift, scale and gate of a branch, linear in the conditioning vector."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Modulation(NamedTuple):
    """x + gate * branch(norm(x) * (1 + scale) + shift), each (B, 1, D). DiT, 2212.09748."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


def split_modulation(vectors: Float[Tensor, "b c"], branches: int) -> tuple[Modulation, ...]:
    """(B, branches * 3 * D) in the order shift, scale, gate of each branch."""
    parts = vectors[:, None].chunk(3 * branches, -1)
    return tuple(Modulation(*parts[k : k + 3]) for k in range(0, len(parts), 3))
