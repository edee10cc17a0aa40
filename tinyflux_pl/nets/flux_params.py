"""Sizes of a Flux over sequences, checked before a tensor is allocated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tinyflux_pl.core.errors import ConfigError

_WIDTHS = (
    "in_channels",
    "out_channels",
    "vec_in_dim",
    "context_in_dim",
    "hidden_size",
    "num_heads",
    "theta",
)


@dataclass(frozen=True)
class FluxParams:
    """Sizes by the names of black-forest-labs/flux; every one must be given.

    A target token is `in_channels` wide, a condition token `context_in_dim`, the vector
    `vec_in_dim`. `axes_dim` shares each head's hidden_size / num_heads channels out among the
    columns of the position ids. Raises ConfigError for a combination that no network can have.
    """

    in_channels: int
    out_channels: int
    vec_in_dim: int
    context_in_dim: int
    hidden_size: int
    mlp_ratio: float | int
    num_heads: int
    depth: int
    depth_single_blocks: int
    axes_dim: Sequence[int]
    theta: float | int
    qkv_bias: bool
    guidance_embed: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes_dim", tuple(self.axes_dim))
        for name in _WIDTHS:
            if getattr(self, name) <= 0:
                _refuse(f"{name} is {getattr(self, name)}", f"give a positive {name}")
        if self.depth < 0 or self.depth_single_blocks < 0:
            _refuse(
                "a negative number of blocks", "give depth and depth_single_blocks of 0 or more"
            )
        if self.hidden_size % self.num_heads:
            _refuse(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}",
                "make hidden_size = num_heads * head width",
            )
        if sum(self.axes_dim) != self.head_dim:
            _refuse(
                f"axes_dim {list(self.axes_dim)} sums to {sum(self.axes_dim)}, a head has "
                f"{self.head_dim} channels",
                "give even numbers, one for each column of the ids, whose sum is hidden_size / "
                "num_heads",
            )
        if any(dim % 2 or dim <= 0 for dim in self.axes_dim):
            _refuse(
                f"axes_dim {list(self.axes_dim)} has an odd or empty axis",
                "rotate pairs: use even widths",
            )
        if self.mlp_width < 1:
            _refuse(f"mlp_ratio is {self.mlp_ratio}", "give a positive mlp_ratio")

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def mlp_width(self) -> int:
        """Channels between the two linear layers of an MLP."""
        return int(self.hidden_size * self.mlp_ratio)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `FluxParams(**data)` is its inverse."""
        return {**asdict(self), "axes_dim": list(self.axes_dim)}


def _refuse(what: str, cure: str) -> None:
    raise ConfigError(what, where="FluxParams", cure=cure)
