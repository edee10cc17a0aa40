"""Block offloading: a network's weights on the host, its blocks copied to the device in turn.

The copy of a block is dropped after it has run, and nothing is copied back. While a block runs, the
next one in turn is copied: on CUDA from pinned memory, on a stream beside. On a CPU the copies are
copies too, so that the bytes of the device can be counted there (engine.live_bytes).
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.engine.block_sizes import in_turn


class BlockOffload:
    """Copies of a network: `count` blocks in turn, the rest from `load` to `unload`.

    Which blocks says `engine.block_sizes.in_turn`. At most two of them are on the device at once.
    """

    def __init__(
        self, network: nn.Module, blocks: Sequence[nn.Module], device: torch.device, count: int
    ) -> None:
        chosen = [blocks[i] for i in in_turn(count, len(blocks))]
        turns = [_tensors([block]) for block in chosen]
        taken = {id(tensor) for tensors in turns for tensor in tensors}
        rest = [tensor for tensor in _tensors([network]) if id(tensor) not in taken]
        self._stay = Copies(rest, device)
        self._turns = [Copies(tensors, device, pinned=True) for tensors in turns]
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._here: list[int] = []  # blocks in turn that are on the device
        self._finished: torch.cuda.Event | None = None  # of the last block that was dropped
        self._retired: list[Tensor] = []  # its copies, until the device has used them
        for number, block in enumerate(chosen):
            # on the instance, within what a step cache puts there: a skipped block is not copied
            block.forward = self._bound(number, block.forward)

    def load(self) -> None:
        """Copy the resident part; blocks in turn are copied when they run."""
        self._stay.bring()

    def unload(self) -> None:
        """Drop all copies; the network is on the host only."""
        for number in list(self._here):
            self._drop(number)
        self._wait()
        self._stay.drop()

    def _bound(self, number: int, run: Callable[..., Any]) -> Callable[..., Any]:
        # weakly, so that a network that is freed is gone at once
        method = weakref.WeakMethod(run) if inspect.ismethod(run) else partial(_same, run)

        def forward(*args: Any, **keywords: Any) -> Any:
            call = method()
            assert call is not None  # its block is running
            self._enter(number)
            output = call(*args, **keywords)
            self._drop(number)
            return output

        return forward

    def _enter(self, number: int) -> None:
        """Make sure that this block is on the device, and start copying the next."""
        for other in [n for n in self._here if n != number]:  # blocks between were passed by
            self._drop(other)
        if number not in self._here:
            self._fetch(number)
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
        if len(self._turns) > 1:
            self._fetch((number + 1) % len(self._turns))

    def _fetch(self, number: int) -> None:
        self._wait()
        if self._stream is None:
            self._turns[number].bring()
        else:
            with torch.cuda.stream(self._stream):
                self._turns[number].bring()
        self._here.append(number)

    def _drop(self, number: int) -> None:
        copies = self._turns[number].drop()
        self._here.remove(number)
        if self._stream is not None:
            self._wait()
            self._retired, self._finished = copies, torch.cuda.Event()
            self._finished.record()

    def _wait(self) -> None:
        """Free the copies dropped last, once the device has used them."""
        if self._finished is not None:
            self._finished.synchronize()
            self._finished, self._retired = None, []


class Copies:
    """Tensors of a network on the host, with copies on the device between `bring` and `drop`."""

    def __init__(self, tensors: list[Tensor], device: torch.device, pinned: bool = False) -> None:
        self.device = device
        if pinned and device.type == "cuda":
            for tensor in tensors:
                tensor.data = tensor.data.pin_memory()
        self._pairs = [(tensor, tensor.data) for tensor in tensors]

    def bring(self) -> None:
        """Copy to the device."""
        with torch.inference_mode(False), torch.no_grad():
            for tensor, host in self._pairs:
                tensor.data = host.to(self.device, non_blocking=True, copy=True)

    def drop(self) -> list[Tensor]:
        """Point the tensors at the host's data again; returns the copies."""
        copies = [tensor.data for tensor, _ in self._pairs]
        for tensor, host in self._pairs:
            tensor.data = host
        return copies


def _tensors(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Parameters and buffers, each once."""
    tensors = {id(tensor): tensor for m in modules for tensor in (*m.parameters(), *m.buffers())}
    return list(tensors.values())


def _same(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
