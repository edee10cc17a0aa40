"""Bytes of tensors alive at once, counted by what torch makes: the same on every machine, and on the meta device."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

Moment = tuple[str, int]  # the operation, and the bytes alive after it


class LiveBytes(TorchDispatchMode):
    """Inside the block: `live` bytes more than at its start, and `history`, the same at every new tensor.

    Tensors that were there before do not count, nor do views of them; `before` names those of them that
    the block may free, which lowers `live`. `device` counts one type of device alone. What a kernel takes
    and gives back by itself, and what the allocator rounds up, is not seen.
    """

    def __init__(self, device: str | None = None, before: Any = ()) -> None:
        super().__init__()
        self.device, self.live = device, 0
        self.history: list[Moment] = []
        self._known: dict[int, int] = {}
        for storage in _storages(before):
            self._follow(storage)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run the operation, then count the storages of its results that are none of its arguments'."""
        kwargs = kwargs or {}
        given = {storage._cdata for storage in _storages((args, kwargs))}
        result = func(*args, **kwargs)
        for storage in _storages(result):
            new = storage._cdata not in given and storage._cdata not in self._known
            if new and self.device in (None, storage.device.type):
                self.live += self._follow(storage)
                self.history.append((str(func), self.live))
        return result

    def _follow(self, storage: torch.UntypedStorage) -> int:
        """Bytes of a storage whose end is watched from now on; 0 if it lies on another device."""
        if self.device is not None and storage.device.type != self.device:
            return 0
        self._known[storage._cdata] = storage.nbytes()
        weakref.finalize(storage, self._drop, storage._cdata)
        return storage.nbytes()

    def _drop(self, key: int) -> None:
        self.live -= self._known.pop(key, 0)


@dataclass(frozen=True)
class Growth:
    """The history of some work at one sample and at two: each moment is linear in the batch, their maximum is not."""

    one: list[Moment]
    two: list[Moment]

    def at(self, batch: int) -> int:
        """The most bytes alive at once with `batch` samples."""
        most = max((live for _, live in self.two), default=0)
        return max([most, *(first + (second - first) * (batch - 1) for first, second in self._same)])

    @cached_property
    def _same(self) -> list[tuple[int, int]]:
        """The bytes at the same moments of both; what is done once a sample has moments in one history alone."""
        one, two, least = self.one, self.two, min(len(self.one), len(self.two))
        head = next((i for i in range(least) if one[i][0] != two[i][0]), least)
        tail = next((i for i in range(least - head) if one[-1 - i][0] != two[-1 - i][0]), least - head)
        middle = [[name for name, _ in history[head : len(history) - tail]] for history in (one, two)]
        blocks = SequenceMatcher(None, *middle, autojunk=False).get_matching_blocks()
        places = [(i, i) for i in range(head)] + [(-1 - i, -1 - i) for i in range(tail)]
        places += [(head + b.a + i, head + b.b + i) for b in blocks for i in range(b.size)]
        return [(one[i][1], two[j][1]) for i, j in places]


def growth(work: Callable[[int], Any], most: int, device: str | None = None) -> Growth:
    """Count `work(1)` and, if there will ever be two samples, `work(2)`."""
    histories = []
    for batch in (1, min(2, most)):
        with LiveBytes(device) as count:
            work(batch)
        histories.append(count.history)
    return Growth(*histories)


class FusedAttention(TorchFunctionMode):
    """Inside, attention makes its answer alone, as fused kernels do: on the meta device torch would take the others."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run anything but scaled_dot_product_attention."""
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | (kwargs or {})
        query, value, mask = given["query"], given["value"], given.get("attn_mask")
        if mask is not None and mask.dtype == torch.bool:
            mask = mask.to(query.dtype)  # as torch hands it to its kernels
        return query.new_empty(*query.shape[:-1], value.shape[-1])


def activations(work: Callable[[], Any]) -> int:
    """The most bytes that `work`, on the meta device, has alive at once."""
    with torch.inference_mode(), FusedAttention(), LiveBytes() as count:
        work()
    return max((live for _, live in count.history), default=0)


def held(*things: Any, device: str | None = None) -> int:
    """Bytes of the storages of every tensor in nested containers, each storage once."""
    found = {s._cdata: s.nbytes() for s in _storages(things) if device is None or s.device.type == device}
    return sum(found.values())


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_iter(tree):
        if isinstance(leaf, Tensor):
            yield leaf.untyped_storage()
