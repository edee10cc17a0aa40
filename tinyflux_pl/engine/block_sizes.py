"""Bytes of a network by blocks, and the indices of the blocks offloaded in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

FEWEST = 3  # in turn: two are on the device at once, so that fewer save nothing


@dataclass(frozen=True)
class BlockSizes:
    """Bytes of weights outside a network's lists of blocks, and of each block in order."""

    outside: int
    blocks: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """Bytes of all weights."""
        return self.outside + sum(self.blocks)

    @property
    def most_in_turn(self) -> int:
        """The largest number of blocks that can come in turn: all but the first, or none."""
        return len(self.blocks) - 1 if len(self.blocks) > FEWEST else 0

    def plus(self, count: int) -> BlockSizes:
        """The sizes with so many more bytes outside the blocks."""
        return BlockSizes(self.outside + count, self.blocks)

    def with_in_turn(self, count: int) -> int:
        """Bytes on the device with `count` blocks in turn: the other blocks, and two of these."""
        turns = [self.blocks[i] for i in in_turn(count, len(self.blocks))]
        if not turns:
            return self.total
        following = [*turns[1:], turns[0]]  # the next step begins at the front
        pair = max(a + b for a, b in zip(turns, following, strict=True))
        return self.total - sum(turns) + pair

    def fewest_in_turn(self, budget: int) -> int | None:
        """The smallest number of blocks in turn that fits `budget` bytes; None: no number does."""
        counts = (0, *range(FEWEST, self.most_in_turn + 1))
        return next((count for count in counts if self.with_in_turn(count) <= budget), None)


def in_turn(count: int, blocks: int) -> list[int]:
    """Indices of `count` blocks among 1 ... `blocks` - 1, evenly spread.

    Blocks that stay run between them, while the next one is copied. The first block stays: a step
    cache reads it outside its forward pass.
    """
    return [1 + int((i + 0.5) * (blocks - 1) / count) for i in range(count)]


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The blocks of the outermost lists in a network, in order."""
    blocks: list[nn.Module] = []
    for child in network.children():
        blocks += list(child) if isinstance(child, nn.ModuleList) else blocks_of(child)
    return blocks


def sizes_of(
    network: nn.Module, blocks: Sequence[nn.Module], itemsize: int | None = None
) -> BlockSizes:
    """Sizes of a network's parameters and of these blocks, of `itemsize` bytes a value if given."""

    def size(module: nn.Module) -> int:
        return sum(p.numel() * (itemsize or p.itemsize) for p in module.parameters())

    counts = tuple(size(block) for block in blocks)
    return BlockSizes(size(network) - sum(counts), counts)
