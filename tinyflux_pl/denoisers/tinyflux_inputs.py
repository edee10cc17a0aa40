"""Inputs of TinyFlux's linear layers that can be divided by channel where they are computed.

Those of fc2 have passed a GELU, those of the modulations a SiLU: they are not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from torch import Tensor

from tinyflux_pl.core.divisible_inputs import DivisibleInput, Source


def divisible_inputs(net: Any) -> tuple[DivisibleInput, ...]:
    """The inputs in all blocks of the network, which the denoiser holds as `net`."""
    double = (f"net.double_blocks.{n}." for n in range(len(net.double_blocks)))
    single = (f"net.single_blocks.{n}." for n in range(len(net.single_blocks)))
    return (
        *chain.from_iterable(map(double_block, double)),
        *chain.from_iterable(map(single_block, single)),
    )


def modulated(block: Any, inputs: dict[str, Any]) -> Tensor:
    """The input of the image's attention in a double block, from the block's arguments."""
    return block.img_norm1(inputs["img"], inputs["vec"])[0]


def double_block(path: str) -> Iterator[DivisibleInput]:
    """The inputs in a double-stream block; `path` ends with a dot."""
    for stream in ("img", "txt"):
        modulation, attention = f"{path}{stream}_norm1", (f"{path}attn.{stream}_qkv",)
        shifts = [Source(f"{modulation}.linear", part, 6) for part in (0, 3)]
        yield DivisibleInput(attention, (Source(f"{modulation}.norm"), shifts[0]))
        mlp = (f"{path}{stream}_mlp.fc1",)
        yield DivisibleInput(mlp, (Source(f"{path}{stream}_norm2"), shifts[1]))
    # text and image attend to the values of both
    values = tuple(Source(f"{path}attn.{stream}_qkv", 2, 3) for stream in ("img", "txt"))
    yield DivisibleInput((f"{path}attn.img_out", f"{path}attn.txt_out"), values)


def single_block(path: str) -> Iterator[DivisibleInput]:
    """The inputs in a single-stream block; the unmodulated MLP follows the attention."""
    modulated = (Source(f"{path}norm.norm"), Source(f"{path}norm.linear", 0, 3))
    yield DivisibleInput((f"{path}attn.qkv",), modulated)
    yield DivisibleInput((f"{path}attn.out_proj",), (Source(f"{path}attn.qkv", 2, 3),))
    yield DivisibleInput((f"{path}mlp.fc1",), (Source(f"{path}norm2"),))
