"""A GPU for tests on machines without one: what is sent there is noted, and stays on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class PretendedGPU(TorchFunctionMode):
    """Inside, tensors that are moved to "cuda", and what is made of them, say that they are there.

    `sent` counts the copies from the host, `waited` those for which the host would wait: whose
    memory is not pinned, or that are not `non_blocking`. `unsafe` counts those back, of which the
    host may read too early.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent, self.waited, self.unsafe = 0, 0, 0
        self._pinned: list[Tensor] = []  # kept, so that no other tensor takes their identity
        self._there: list[Tensor] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), named: Any = None
    ) -> Any:
        named = dict(named or {})
        if function == Tensor.device.__get__ and self._is(args[0], self._there):
            return torch.device("cuda:0")
        if function is Tensor.pin_memory:
            assert args[0].is_contiguous(), "rows that share their memory cannot be pinned"
            return (
                args[0]
                if self._is(args[0], self._pinned)
                else self._kept(args[0].clone(), self._pinned)
            )
        if function is torch.empty and named.pop("pin_memory", False):
            return self._kept(function(*args, **named), self._pinned)
        if function is Tensor.to and any(
            str(value).startswith("cuda") for value in (*args[1:], *named.values())
        ):
            if not self._is(args[0], self._there):
                self.sent += 1
                self.waited += not (self._is(args[0], self._pinned) and named.get("non_blocking"))
            return self._kept(args[0].clone(), self._there)
        if function is Tensor.to and self._is(args[0], self._there):
            self.unsafe += bool(named.get("non_blocking"))
        result = function(*args, **named)
        if function is not Tensor.to and any(
            self._is(one, self._there) for one in tree_leaves((args, named))
        ):
            for result_tensor in tree_leaves(result):
                if isinstance(result_tensor, Tensor):
                    self._kept(result_tensor, self._there)
        return result

    def _is(self, tensor: Any, tensors: list[Tensor]) -> bool:
        return any(tensor is one for one in tensors)

    def _kept(self, tensor: Tensor, tensors: list[Tensor]) -> Tensor:
        tensors.append(tensor)
        return tensor
