"""Muon: orthogonalised momentum, batched over matrices of one shape.

A convolution kernel (out, in, h, w) counts as the matrix (out, in h w) that it applies to each
patch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.precision import has_fast_bf16

# Of the quintic iteration, chosen for its slope at 0 (Jordan et al. 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MAX_STACK_BYTES = 2**26  # of gradients in one batch, which holds at least one matrix


def orthogonal(matrices: Tensor, eps: float = 1e-7) -> Tensor:
    """(K, m, n) -> the same with singular values near 1, by Newton-Schulz iteration.

    Computed and returned in bf16 where the processor has it, else in fp32.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.bfloat16() if has_fast_bf16(matrices.device.type) else matrices.float()
    x = x.mT if tall else x
    # The Frobenius norm bounds the singular values: none is above 1 afterwards.
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon with Nesterov momentum and AdamW's update RMS, in fewer calls.

    Liu et al. 2025. Where `found_inf` (a scalar on the device; torch's name) is above 0, a step
    leaves weights and momentum unchanged to the bit, and the host does not wait for it.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 2e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        if not (lr >= 0 and 0 <= momentum < 1 and weight_decay >= 0):
            raise ValueError(f"invalid options of Muon: {lr=}, {momentum=}, {weight_decay=}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for stack in _stacks(p for p in group["params"] if p.grad is not None):
                self._step(stack, group["lr"], group["momentum"], group["weight_decay"])

    def _step(
        self, parameters: list[Tensor], lr: float, momentum: float, weight_decay: float
    ) -> None:
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        gradients = torch.stack([p.grad for p in parameters])
        before = torch.stack(buffers)
        after = before.lerp(gradients, 1 - momentum)
        direction = gradients.lerp(after, momentum)
        matrices = orthogonal(direction.flatten(2))
        rate = lr * 0.2 * math.sqrt(max(matrices.shape[-2:]))
        update = matrices.view_as(direction)
        decay: float | Tensor = 1 - lr * weight_decay
        if self.found_inf is not None:
            bad = self.found_inf > 0
            after = torch.where(bad, before, after)
            update = torch.where(bad, torch.zeros_like(update), update)
            decay = torch.where(bad, 1.0, decay)
        for i, (parameter, buffer) in enumerate(zip(parameters, buffers, strict=True)):
            buffer.copy_(after[i])
            parameter.mul_(decay).add_(update[i], alpha=-rate)


def _stacks(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Group matrices of one shape, dtype and device, in stacks of at most `MAX_STACK_BYTES`."""
    groups: dict[Any, list[list[Tensor]]] = {}
    for parameter in parameters:
        stacks = groups.setdefault((parameter.shape, parameter.dtype, parameter.device), [[]])
        if stacks[-1] and (len(stacks[-1]) + 1) * parameter.nbytes > MAX_STACK_BYTES:
            stacks.append([])
        stacks[-1].append(parameter)
    return [stack for stacks in groups.values() for stack in stacks]
