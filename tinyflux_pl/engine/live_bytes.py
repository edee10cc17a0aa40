"""Count the bytes of live tensors: equal on every machine, also on the meta device."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

Moment = tuple[str, int]  # the operation, and the bytes alive after it


class LiveBytes(TorchDispatchMode):
    """Inside the block, `live` is the number of bytes allocated since its start.

    `history` records it at each tensor.

    Tensors from before do not count, nor do views of them; `before` names those that the block may
    free, which lowers `live`. `device` restricts the count to one device type. Temporary memory
    inside a kernel and the allocator's rounding are not counted.
    """

    def __init__(self, device: str | None = None, before: Any = ()) -> None:
        super().__init__()
        self.device = device
        self.live = 0
        self.history: list[Moment] = []
        self._tracked: dict[int, tuple[int, int]] = {}  # address -> number and bytes
        self._number = 0  # of the next storage: addresses are used again
        self._paused = False
        for storage in _storages(before):
            self._follow(storage)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and count result storages that are not shared with arguments."""
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        inputs = {storage._cdata for storage in _storages((args, kwargs))}
        result = func(*args, **kwargs)
        for storage in _storages(result):
            new = storage._cdata not in inputs and storage._cdata not in self._tracked
            if new and self.device in (None, storage.device.type):
                self.live += self._follow(storage)
                self.history.append((str(func), self.live))
        return result

    def _follow(self, storage: torch.UntypedStorage) -> int:
        """Subtract a storage's bytes when it is freed; return them, or 0 on another device."""
        if self.device is not None and storage.device.type != self.device:
            return 0
        self._tracked[storage._cdata] = (self._number, storage.nbytes())
        self._number += 1
        weakref.finalize(storage, self._drop, storage._cdata)
        return storage.nbytes()

    def _drop(self, key: int) -> None:
        self.live -= self._tracked.pop(key, (0, 0))[1]

    def live_storages(self) -> dict[tuple[int, int], int]:
        """Bytes of each counted live storage, by its address and number."""
        return {(key, number): size for key, (number, size) in self._tracked.items()}

    def allocated(self, moments: Sequence[Moment], sizes: Sequence[int]) -> list[Tensor]:
        """Record moments, relative to now, and allocate memory (n,) uint8 on meta."""
        self.history += [(name, self.live + live) for name, live in moments]
        self._paused = True
        memory = [torch.empty(size, dtype=torch.uint8, device="meta") for size in sizes]
        self._paused = False
        self.live += sum(self._follow(tensor.untyped_storage()) for tensor in memory)
        return memory


@dataclass(frozen=True)
class Growth:
    """Histories at batch sizes 1 and 2; moments are linear in the batch size, the peak is not."""

    one: list[Moment]
    two: list[Moment]

    def at(self, batch: int) -> int:
        """Peak bytes with `batch` samples."""
        peak = max((live for _, live in self.two), default=0)
        predicted = [one + (two - one) * (batch - 1) for one, two in self._matched]
        return max([peak, *predicted])

    @cached_property
    def _matched(self) -> list[tuple[int, int]]:
        """Bytes at matching moments; moments in one history alone are left out."""
        one, two = self.one, self.two
        least = min(len(one), len(two))
        head = next((i for i in range(least) if one[i][0] != two[i][0]), least)
        tail = next(
            (i for i in range(least - head) if one[-1 - i][0] != two[-1 - i][0]), least - head
        )
        middle = [
            [name for name, _ in history[head : len(history) - tail]] for history in (one, two)
        ]
        blocks = SequenceMatcher(None, *middle, autojunk=False).get_matching_blocks()
        pairs = [(i, i) for i in range(head)] + [(-1 - i, -1 - i) for i in range(tail)]
        pairs += [(head + b.a + i, head + b.b + i) for b in blocks for i in range(b.size)]
        return [(one[i][1], two[j][1]) for i, j in pairs]


def growth(work: Callable[[int], Any], max_batch: int, device: str | None = None) -> Growth:
    """Count `work(1)` and, if `max_batch` allows two samples, `work(2)`."""
    histories = []
    for batch in (1, min(2, max_batch)):
        with LiveBytes(device) as count:
            work(batch)
        histories.append(count.history)
    return Growth(*histories)


def storage_bytes(*trees: Any, device: str | None = None) -> int:
    """Bytes of the storages of all tensors in nested containers, each storage once."""
    sizes = {
        storage._cdata: storage.nbytes()
        for storage in _storages(trees)
        if device is None or storage.device.type == device
    }
    return sum(sizes.values())


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_iter(tree):
        if isinstance(leaf, Tensor):
            yield leaf.untyped_storage()
