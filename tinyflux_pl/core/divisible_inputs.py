"""Inputs of linear layers that can be divided, channel by channel, where they are computed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Channels that a module computes, as a fixed multiple of its own numbers.

    `module` is a path in the denoiser: a linear layer, of whose output channels these are the
    `part`-th of `parts` equal ones, or a norm with a weight and no bias. `one_added`: the network
    adds 1 to them before they multiply (the scale of adaLN).
    """

    module: str
    part: int = 0
    parts: int = 1
    one_added: bool = False


@dataclass(frozen=True)
class DivisibleInput:
    """A tensor that only `layers`, given by path, read.

    Dividing the channels of every one of `sources` by s (K,) divides the tensor's by s; with
    `one_added` it is the sum with 1 that is divided.
    """

    layers: tuple[str, ...]
    sources: tuple[Source, ...]
