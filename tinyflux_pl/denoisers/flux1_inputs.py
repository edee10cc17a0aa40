"""Inputs of FLUX.1's linear layers that can be divided by channel where they are computed.

In diffusers' FluxTransformer2DModel. Those of ff.net.2, ff_context.net.2 and proj_out have passed
a GELU, those of the modulations a SiLU: they are not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from tinyflux_pl.core.divisible_inputs import DivisibleInput, Source


def divisible_inputs(net: Any) -> tuple[DivisibleInput, ...]:
    """The inputs in all blocks of the network, which the denoiser holds as `net`."""
    double = (f"net.transformer_blocks.{n}." for n in range(len(net.transformer_blocks)))
    single = (
        f"net.single_transformer_blocks.{n}." for n in range(len(net.single_transformer_blocks))
    )
    return (
        *chain.from_iterable(map(double_block, double)),
        *chain.from_iterable(map(single_block, single)),
    )


def double_block(path: str) -> Iterator[DivisibleInput]:
    """The inputs in a double-stream block; `path` ends with a dot."""
    for norm, projections, forward in (
        ("norm1", ("to_q", "to_k", "to_v"), "ff"),
        ("norm1_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "ff_context"),
    ):
        attention = tuple(f"{path}attn.{name}" for name in projections)
        yield DivisibleInput(attention, _modulated(f"{path}{norm}.linear", 0, 6))
        mlp = (f"{path}{forward}.net.0.proj",)
        yield DivisibleInput(mlp, _modulated(f"{path}{norm}.linear", 3, 6))
    # text and image attend to the values of both
    values = (Source(f"{path}attn.to_v"), Source(f"{path}attn.add_v_proj"))
    yield DivisibleInput((f"{path}attn.to_out.0", f"{path}attn.to_add_out"), values)


def single_block(path: str) -> Iterator[DivisibleInput]:
    """The inputs in a single-stream block, whose MLP is parallel to the attention."""
    layers = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    modulated = _modulated(f"{path}norm.linear", 0, 3)
    yield DivisibleInput(tuple(f"{path}{name}" for name in layers), modulated)


def _modulated(linear: str, shift: int, parts: int) -> tuple[Source, ...]:
    """norm(x) * (1 + scale) + shift, scale after shift among the parts of the modulation."""
    return Source(linear, shift, parts), Source(linear, shift + 1, parts, one_added=True)
