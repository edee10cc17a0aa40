"""A denoiser's stack of transformer blocks, with hooks to skip or replace blocks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError


@dataclass(frozen=True)
class StackBlock:
    """One block, and the residual streams that it updates, by argument name.

    `streams` are in the order in which it returns them; a single one is returned bare. `image` is
    the stream whose last tokens the output layer reads. `modulated` gives the normed and modulated
    image stream from the arguments of a first block, as TeaCache measures it. `selected` gives the
    arguments, without the streams, for a part (B, k) of the image's tokens and their number; None:
    the block takes all.
    """

    module: nn.Module
    streams: tuple[str, ...]
    image: str
    modulated: Callable[[dict[str, Any]], Tensor] | None = None
    selected: Callable[[dict[str, Any], Tensor, int], dict[str, Any]] | None = None

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(type(self.module).forward)

    def inputs(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name."""
        return dict(self._signature.bind(self.module, *args, **keywords).arguments)

    def unchanged(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The value that the block would return if it added nothing to its streams."""
        inputs = self.inputs(args, keywords)
        streams = tuple(inputs[name] for name in self.streams)
        return streams if len(streams) > 1 else streams[0]

    def image_of(self, output: Any) -> Tensor:
        """The image stream of a value that the block returned."""
        return output[self.streams.index(self.image)] if len(self.streams) > 1 else output

    def with_image(self, output: Any, image: Tensor) -> Any:
        """The returned value with another image stream."""
        if len(self.streams) == 1:
            return image
        return tuple(
            image if name == self.image else value
            for name, value in zip(self.streams, output, strict=True)
        )


def stack_of(
    modules: Sequence[nn.Module] | nn.ModuleList,
    streams: tuple[str, ...],
    image: str,
    modulated: Callable[[Any, dict[str, Any]], Tensor] | None = None,
    selected: Callable[[dict[str, Any], Tensor, int], dict[str, Any]] | None = None,
) -> tuple[StackBlock, ...]:
    """The blocks of a list of equal kind; `modulated` takes a block and its arguments."""
    rules = (None if modulated is None else partial(modulated, module) for module in modules)
    return tuple(
        StackBlock(module, streams, image, rule, selected)
        for module, rule in zip(modules, rules, strict=True)
    )


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Generator[None]:
    """Inside, call `forward` in place of the module's own."""
    before = vars(module).get("forward")
    module.forward = forward  # on the instance: hooks of others stay around it
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def require_blocks(blocks: Sequence[StackBlock], layers: Sequence[int], name: str) -> None:
    """Raise ConfigError for layers that the network does not have, or cannot skip."""
    if not blocks:
        raise ConfigError(
            "this network has no blocks that could be skipped",
            where=f"guidance.skip_layers, {name}",
            cure="guidance.skip_layers=[]",
        )
    missing = [layer for layer in layers if layer >= len(blocks)]
    if missing:
        raise ConfigError(
            f"no block {missing[0]} among {len(blocks)}",
            where=f"guidance.skip_layers, {name}",
            cure=f"numbers from 0 to {len(blocks) - 1}",
        )


@contextmanager
def skipping(blocks: Sequence[StackBlock], layers: Sequence[int]) -> Generator[None]:
    """Inside, skip these blocks in every forward pass."""
    if not layers:
        yield
        return
    block = blocks[layers[0]]
    with (
        replaced_forward(block.module, lambda *args, **kw: block.unchanged(args, kw)),
        skipping(blocks, layers[1:]),
    ):
        yield
