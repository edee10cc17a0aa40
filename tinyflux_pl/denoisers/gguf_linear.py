"""Linear layers that keep GGUF blocks, dequantized in each forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.nets.packed_product import Stored, autocast, product
from tinyflux_pl.weights.gguf_types import NumberType
from tinyflux_pl.weights.packed_rows import PackedRows

PIECE = 2**24  # numbers multiplied out at once in fp32, beside the weight in its own dtype
WHERE = "model.packed"
UNPACKED = f"{WHERE}=false multiplies the file out once, into model.dtype"

Blocks = UInt8[Tensor, "n bytes"]


class GGUFLinear(nn.Linear):
    """y = x W^T + b, W kept as blocks of a GGUF file: `weight` (N, bytes) uint8, frozen.

    W is multiplied out in fp32 and rounded to `stored`, the dtype of the network, as if it had been
    on loading: the product has the same bits. A gradient reaches x; W is multiplied out again for
    it. A subclass of nn.Linear, so that adapters find it.
    """

    def __init__(self, linear: nn.Linear, rows: PackedRows) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.kind, self.stored = rows.kind, rows.dtype
        empty = torch.empty(rows.blocks.shape, dtype=torch.uint8, device="meta")
        self.weight = nn.Parameter(empty, requires_grad=False)
        self.bias = linear.bias

    def forward(self, input: Float[Tensor, "*b k"]) -> Float[Tensor, "*b n"]:
        """In the dtype of the input, or autocast's."""
        blocks = RowBlocks(self.kind, self.stored)
        return product(autocast(input), (self.weight,), self.bias, blocks)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.kind.name}"


@dataclass(frozen=True)
class RowBlocks:
    """Blocks of a type, rounded to `stored` where they are multiplied out (nets.packed_product)."""

    kind: NumberType
    stored: torch.dtype

    def values(self, stored: Stored, dtype: torch.dtype) -> Float[Tensor, "n k"]:
        (blocks,) = stored
        return multiply_out(blocks, self.kind, self.stored, dtype)

    def scale(self, stored: Stored) -> None:
        """Blocks have their own scales."""
        return None


def multiply_out(
    blocks: Blocks, kind: NumberType, stored: torch.dtype, dtype: torch.dtype
) -> Float[Tensor, "n k"]:
    """Dequantize blocks with diffusers' functions: in fp32, rounded to `stored`, in `dtype`."""
    function = _functions()[kind.name]
    width = blocks.shape[1] // kind.size * kind.block
    values = blocks.new_empty(len(blocks), width, dtype=dtype)
    step = max(1, PIECE // width)
    for first in range(0, len(blocks), step):
        piece = blocks[first : first + step].reshape(-1, kind.size)
        numbers = function(piece, kind.block, kind.size, dtype=torch.float32)
        values[first : first + step] = numbers.reshape(-1, width).to(stored)
    return values


def readable_types() -> set[str]:
    """Names of the types whose blocks can stay as they are."""
    return {name for name in _functions() if name != "BF16"}


def keep_blocks(
    network: nn.Module, packed: Mapping[str, PackedRows], where: str
) -> dict[str, Tensor]:
    """Replace each nn.Linear whose weight is packed, in place; returns the blocks by key.

    Other modules are left, whose numbers are multiplied out. CheckpointMismatch, before a layer is
    changed, for a type that is not among `readable_types`.
    """
    layers = {}
    readable = readable_types()
    for key, rows in packed.items():
        path, _, leaf = key.rpartition(".")
        layer = network.get_submodule(path)
        if leaf != "weight" or type(layer) is not nn.Linear:
            continue
        if rows.kind.name not in readable:
            what = f"{key} is packed as {rows.kind.name}, which is multiplied out on loading alone"
            raise CheckpointMismatch(what, where=where, cure=UNPACKED)
        layers[path] = layer
    for path, layer in layers.items():
        network.set_submodule(path, GGUFLinear(layer, packed[f"{path}.weight"]))
    return {f"{path}.weight": packed[f"{path}.weight"].blocks for path in layers}


def kept_layers(network: nn.Module) -> list[GGUFLinear]:
    """The layers that keep GGUF blocks."""
    return [module for module in network.modules() if isinstance(module, GGUFLinear)]


def require_numbers(network: nn.Module, reader: str) -> None:
    """Raise ConfigError, naming `reader`, for a network that keeps GGUF blocks."""
    if kept_layers(network):
        what = f"{reader} reads the numbers of weights that stay packed as in their GGUF file"
        raise ConfigError(what, where=WHERE, cure=UNPACKED)


def num_parameters(network: nn.Module) -> int:
    """Number of parameters of a network; GGUF blocks count as the numbers that they encode."""
    count = sum(parameter.numel() for parameter in network.parameters())
    layers = kept_layers(network)
    return count + sum(x.in_features * x.out_features - x.weight.numel() for x in layers)


def _functions() -> dict[str, Callable[..., Tensor]]:
    from diffusers.quantizers.gguf import utils

    return {kind.name: function for kind, function in utils.dequantize_functions.items()}
