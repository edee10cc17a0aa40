"""Formats of stored weights: rounded to nearest, with a scale for each output channel or group.

A weight (N, K) becomes integers or 8-bit floats and scales s such that W is about q * s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.nets.packed_product import Stored

GROUP = 64  # input channels that share a scale of int4
FP8 = torch.float8_e4m3fn
FP8_LARGEST = 448.0  # of e4m3 without infinities
TINY = 1e-12  # keeps the scale of a row of zeros finite

Weight = Float[Tensor, "n k"]


@dataclass(frozen=True)
class Format:
    """`pack` gives the stored tensor and its scales, `unpack` the values without their scales.

    `group`: input channels that share a scale, of which a layer must have a multiple; None: all.
    `dynamic`: activations are rounded too, each token by its own scale, with groups each token and
    group (Q-DiT, Chen et al. 2024, 2406.17343, without its search for group sizes).
    """

    name: str
    bits: int
    pack: Callable[[Weight], tuple[Tensor, Tensor]]
    unpack: Callable[[Tensor, torch.dtype], Tensor]
    group: int | None = None
    dynamic: bool = False

    def values(self, stored: Stored, dtype: torch.dtype) -> Weight:
        """The weight but for the scales of output channels (nets.packed_product)."""
        packed, scale = stored
        values = self.unpack(packed, dtype)
        return values if self.group is None else (values * scale.to(dtype)).flatten(1)

    def scale(self, stored: Stored) -> Float[Tensor, " n"] | None:
        """The scales of output channels; None with groups."""
        return stored[1] if self.group is None else None


def _row_scale(weight: Weight, largest: float) -> Float[Tensor, "n 1"]:
    return weight.abs().amax(1, keepdim=True).clamp_min(TINY) / largest


def pack_int8(weight: Weight) -> tuple[Tensor, Tensor]:
    """int8 (N, K) in [-127, 127] and scales (N,) fp32: symmetric, a scale each output channel."""
    weight = weight.float()
    scale = _row_scale(weight, 127)
    return (weight / scale).round().to(torch.int8), scale[:, 0]


def unpack_int8(stored: Tensor, dtype: torch.dtype) -> Tensor:
    """The integers as floats (N, K)."""
    return stored.to(dtype)


def pack_fp8(weight: Weight) -> tuple[Tensor, Tensor]:
    """Bytes (N, K) of float8 e4m3 and scales (N,) fp32, one each output channel.

    As uint8: a network's dtype is often read from its first floating-point parameter.
    """
    weight = weight.float()
    scale = _row_scale(weight, FP8_LARGEST)
    return (weight / scale).to(FP8).view(torch.uint8), scale[:, 0]


def unpack_fp8(stored: Tensor, dtype: torch.dtype) -> Tensor:
    """The 8-bit floats as floats (N, K).

    On a CPU, whose own conversion is six times slower, their bits are moved to those of fp16, whose
    exponents are 8 larger: exact, subnormal numbers included.
    """
    if stored.device.type != "cpu":
        return stored.view(FP8).to(dtype)
    bits = stored.view(torch.int8).to(torch.int16)
    # the sign fills the two highest bits; the second is the highest of fp16's exponent
    bits = bits.bitwise_left_shift_(8).bitwise_right_shift_(1).bitwise_and_(~(1 << 14))
    return bits.view(torch.float16).to(dtype).mul_(256)


def pack_int4(weight: Weight) -> tuple[Tensor, Tensor]:
    """Two integers of [-7, 7] a byte (N, K / 2) and scales (N, K / GROUP, 1) fp16.

    Column 2 i is the low half of byte i, column 2 i + 1 the high half.
    """
    groups = weight.float().unflatten(1, (-1, GROUP))
    scale = (groups.abs().amax(2, keepdim=True) / 7).clamp_min(6e-8).to(torch.float16)
    levels = (groups / scale.float()).round().clamp(-7, 7).flatten(1).to(torch.int8) + 8
    low, high = levels[:, 0::2].to(torch.uint8), levels[:, 1::2].to(torch.uint8)
    return low | (high << 4), scale


def pack_int8_groups(weight: Weight) -> tuple[Tensor, Tensor]:
    """int8 (N, K) in [-127, 127] and scales (N, K / GROUP, 1) fp32, one each GROUP inputs."""
    groups = weight.float().unflatten(1, (-1, GROUP))
    scale = groups.abs().amax(2, keepdim=True).clamp_min(TINY) / 127
    levels = (groups / scale).round()
    return levels.flatten(1).to(torch.int8), scale


def unpack_int8_groups(stored: Tensor, dtype: torch.dtype) -> Tensor:
    """The integers as floats (N, K / GROUP, GROUP)."""
    return stored.to(dtype).unflatten(1, (-1, GROUP))


def unpack_int4(stored: Tensor, dtype: torch.dtype) -> Tensor:
    """The integers as floats (N, K / GROUP, GROUP)."""
    levels = torch.stack((stored & 15, stored >> 4), -1).flatten(1)
    return (levels.to(dtype) - 8).unflatten(1, (-1, GROUP))


FORMATS = {
    format.name: format
    for format in (
        Format("fp8", 8, pack_fp8, unpack_fp8),
        Format("int8", 8, pack_int8, unpack_int8),
        Format("int8_dynamic", 8, pack_int8, unpack_int8, dynamic=True),
        Format("int4", 4, pack_int4, unpack_int4, group=GROUP),
        Format("q_dit", 8, pack_int8_groups, unpack_int8_groups, group=GROUP, dynamic=True),
    )
}


def signal_to_noise(signal: Tensor, rounded: Tensor) -> float:
    """10 log10 of the energy of the signal over that of the error, in dB; inf without error."""
    signal, rounded = signal.detach().float(), rounded.detach().float()
    energy = (signal - rounded).square().sum()
    if energy == 0:
        return float("inf")
    return float(10 * torch.log10(signal.square().sum() / energy))
