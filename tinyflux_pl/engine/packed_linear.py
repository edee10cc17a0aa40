"""A linear layer with weights stored in 8 or 4 bits, computed in the input's dtype."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tinyflux_pl.engine.weight_formats import Format
from tinyflux_pl.nets.packed_product import autocast, product, scaled

FEWEST_ROWS = 17  # of a product of integers on CUDA
MULTIPLE = 8  # of its other two sides


class PackedLinear(nn.Module):
    """y = x W^T + b with W in `format` (engine.weight_formats), frozen.

    The scales of output channels multiply the product, not the weight. A dynamic format multiplies
    integers (int8 x int8 to int32) where a GPU has a kernel for the shape; elsewhere it multiplies
    the same integers in fp32, which is exact up to 1040 input channels and saves no time. With
    groups it always is such a simulation. `factors` (K,) divide the input and multiply the weight
    before it is rounded (engine.channel_balance). Of formats that are not dynamic a gradient
    reaches x: the weight is unpacked again on the way back.
    """

    def __init__(
        self, linear: nn.Linear, format: Format, factors: Float[Tensor, " k"] | None = None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.format = format
        weight = linear.weight.detach()
        self.factors: nn.Parameter | None = None
        if factors is not None:
            weight = weight.float() * factors.to(weight.device)
            self.factors = nn.Parameter(factors.to(weight.device), requires_grad=False)
        stored, scale = format.pack(weight)
        self.packed = nn.Parameter(stored, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = linear.bias

    @classmethod
    def fits(cls, linear: nn.Linear, format: Format) -> bool:
        """True if the layer's input channels divide into the groups of the format."""
        return format.group is None or linear.in_features % format.group == 0

    def unpacked(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "n k"]:
        """The rounded weight in the layer's own scale: without factors."""
        stored = (self.packed, self.scale)
        weight, scale = self.format.values(stored, dtype), self.format.scale(stored)
        weight = weight if scale is None else weight * scale.to(dtype)[:, None]
        return weight if self.factors is None else weight / self.factors.to(dtype)

    def forward(self, x: Float[Tensor, "*b k"]) -> Float[Tensor, "*b n"]:
        """In the dtype of x, or autocast's."""
        x = autocast(x)
        if self.factors is not None:
            x = x / self.factors.to(x.dtype)
        if self.format.dynamic and self.format.group is not None:
            x = self._rounded_by_groups(x)
        elif self.format.dynamic:
            return self._of_integers(x)
        return product(x, (self.packed, self.scale), self.bias, self.format)

    def _rounded_by_groups(self, x: Tensor) -> Tensor:
        groups = x.float().unflatten(-1, (-1, self.format.group or 1))
        largest = groups.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
        return ((groups / largest).round() * largest).flatten(-2).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.format.name}"

    def _multiplies_integers(self, x: Tensor) -> bool:
        sides = (self.in_features, self.out_features)
        rows = x.numel() // self.in_features
        return x.is_cuda and rows >= FEWEST_ROWS and not any(side % MULTIPLE for side in sides)

    def _of_integers(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2).float()
        largest = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        levels = (rows / largest).round()
        if self._multiplies_integers(x):
            sums = torch._int_mm(levels.to(torch.int8), self.packed.t()).float()
        else:
            sums = F.linear(levels, self.packed.float())
        output = scaled(sums * largest, self.scale, self.bias, x.dtype)
        return output.unflatten(0, x.shape[:-1])
