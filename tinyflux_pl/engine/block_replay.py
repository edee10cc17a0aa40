"""Repeated blocks: the memory of the first is recorded, and replayed for equal ones.

On the meta device each operation of a network takes longer to plan than a GPU takes to compute it,
and a network repeats its blocks up to 80 times. Within `replayed` a call of a block allocates
nothing but its results where an equal block (engine.equal_modules) was called before with arguments
of the same shapes; the moments between are those of the recorded call.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from tinyflux_pl.core.block_stack import replaced_forward
from tinyflux_pl.engine.equal_modules import equal_forward, outline
from tinyflux_pl.engine.live_bytes import LiveBytes, Moment

PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device, torch.Size)
TENSORS = (Tensor, nn.Parameter)


@contextmanager
def replayed(count: LiveBytes, networks: Iterable[nn.Module]) -> Generator[None]:
    """Inside, calls of blocks in lists of these networks are recorded in `count`, or replayed."""
    blocks = {block: None for network in networks for block in _listed(network)}
    calls = _Calls(count)
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(replaced_forward(block, _Block(block, block.forward, calls)))
        yield


def _listed(network: nn.Module) -> list[nn.Module]:
    """Members of lists of two or more modules, at any depth."""
    lists = (module for module in network.modules() if isinstance(module, nn.ModuleList))
    return [block for blocks in lists if len(blocks) > 1 for block in blocks]


@dataclass(frozen=True)
class _Result:
    """A returned tensor as a view of an argument or of new memory, given by number.

    `layout` is its size, stride and offset; None: the argument itself.
    """

    source: int
    dtype: torch.dtype
    layout: tuple[Any, ...] | None

    def rebuilt(self, sources: Sequence[Any]) -> Any:
        """The tensor, from arguments and new memory."""
        source = sources[self.source]
        return source if self.layout is None else source.view(self.dtype).as_strided(*self.layout)


@dataclass(frozen=True)
class _Record:
    """A recorded call: its block, the structure of its arguments, memory history, and results."""

    block: nn.Module
    structure: TreeSpec
    moments: list[Moment]
    sizes: list[int]  # bytes of the new memory that results keep
    results: list[Any]  # _Result, or a plain value
    returned: TreeSpec

    def replay(self, count: LiveBytes, leaves: list[Any]) -> Any:
        """Count the call's moments from now on, and return what it returned."""
        sources = [*leaves, *count.allocated(self.moments, self.sizes)]
        rebuilt = [r.rebuilt(sources) if isinstance(r, _Result) else r for r in self.results]
        return tree_unflatten(rebuilt, self.returned)


class _Calls:
    """Records of calls, by the outlines of their arguments."""

    def __init__(self, count: LiveBytes) -> None:
        self.count = count
        self.records: dict[tuple[Any, ...], list[_Record]] = {}

    def run(self, block: nn.Module, forward: Callable[..., Any], args: Any, keywords: Any) -> Any:
        """The results of a block, computed or replayed from a record."""
        leaves, structure = tree_flatten((args, keywords))
        outlines = _outlines(leaves)
        if outlines is None:
            return forward(*args, **keywords)
        records = self.records.setdefault(outlines, [])
        for record in records:
            if record.structure == structure and equal_forward(record.block, block):
                return record.replay(self.count, leaves)
        start, first, before = self.count.live, len(self.count.history), self.count.live_storages()
        output = forward(*args, **keywords)
        after = self.count.live_storages()
        new = {key: size for (key, number), size in after.items() if (key, number) not in before}
        returned, form = tree_flatten(output)
        results = _results(returned, [*leaves], new)
        rewritten = _differ(leaves, tree_flatten((args, keywords))[0])
        if results is not None and not rewritten and before.keys() <= after.keys():
            moments = [(name, live - start) for name, live in self.count.history[first:]]
            sizes = list(new.values())
            records.append(_Record(block, structure, moments, sizes, results, form))
        return output


class _Block:
    """Stands in for a block's forward pass; compared attribute by attribute as blocks are."""

    def __init__(self, block: nn.Module, forward: Callable[..., Any], calls: _Calls) -> None:
        self.block, self.forward, self.calls = block, forward, calls

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.calls.run(self.block, self.forward, args, keywords)


def _outlines(leaves: Sequence[Any]) -> tuple[Any, ...] | None:
    """Tensors without values, which of them share memory, and plain values.

    None with any other object, which may hold anything: a cache, a closure.
    """
    outlines: list[Any] = []
    memory: dict[int, int] = {}
    for leaf in leaves:
        if type(leaf) in TENSORS and leaf.is_meta:
            storage = leaf.untyped_storage()
            number = memory.setdefault(storage._cdata, len(memory))
            outlines.append((*outline(leaf), number, storage.nbytes()))
        elif type(leaf) in PLAIN:
            outlines.append((type(leaf), leaf))
        else:
            return None
    return tuple(outlines)


def _differ(leaves: list[Any], later: list[Any]) -> bool:
    """True if the block changed a container among its arguments."""
    return len(later) != len(leaves) or any(a is not b for a, b in zip(leaves, later, strict=True))


def _results(returned: list[Any], leaves: list[Any], new: dict[int, int]) -> list[Any] | None:
    """The returned values as stored in a record; None if they cannot be rebuilt.

    That is so with objects and tensors from elsewhere, and if new memory remains in no result: a
    block that keeps something, in a cache say, may keep it once, and not in each call.
    """
    sources = {
        leaf.untyped_storage()._cdata: i for i, leaf in enumerate(leaves) if _is_tensor(leaf)
    }
    sources |= {key: len(leaves) + i for i, key in enumerate(new)}
    results: list[Any] = []
    stored = set()
    for value in returned:
        if not _is_tensor(value):
            if type(value) not in PLAIN:
                return None
            results.append(value)
            continue
        same = next((i for i, leaf in enumerate(leaves) if leaf is value), None)
        if same is not None:
            results.append(_Result(same, value.dtype, None))
            continue
        key = value.untyped_storage()._cdata
        source = sources.get(key)
        plain = value.is_meta and not value.is_conj() and not value.is_neg()
        if source is None or not plain or type(value) is not Tensor:
            return None
        if source < len(leaves) and leaves[source].dtype != value.dtype:
            return None
        stored.add(key)
        layout = (value.shape, value.stride(), value.storage_offset())
        results.append(_Result(source, value.dtype, layout))
    return results if new.keys() <= stored else None


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)
