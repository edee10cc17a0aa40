"""Rotary position embeddings over several axes, adjacent pairs rotated together."""

from __future__ import annotations

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn


def frequencies(
    dim: int, theta: float = 10000.0, device: str | None = None
) -> Float[Tensor, " half"]:
    """theta^(-2j/dim) for j < dim/2 in fp32 (RoFormer, eq. 15)."""
    return 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim))


class RotaryEmbedding(nn.Module):
    """Position ids (..., N, A) -> one table of (cos, sin) per pair, the axes side by side.

    Frequencies are fp32 whatever the weights are: rounded to bf16 they misplace tokens by up to 0.1
    rad. With `in_checkpoint` they are buffers freqs_i, as published files hold them, and loaded
    ones are kept. Otherwise they follow the module and are no buffers: those DDP sends round in
    each forward, and FSDP rounds to bf16.
    """

    def __init__(
        self, axes: tuple[int, ...], theta: float = 10000.0, in_checkpoint: bool = False
    ) -> None:
        super().__init__()
        self.axes, self.theta, self.in_checkpoint = axes, theta, in_checkpoint
        if in_checkpoint:
            for index, dim in enumerate(axes):
                self.register_buffer(f"freqs_{index}", frequencies(dim, theta))
        else:
            self._compute_frequencies("cpu")

    def _compute_frequencies(self, device: torch.device | str) -> None:
        self._frequencies = [frequencies(dim, self.theta, "cpu").to(device) for dim in self.axes]

    def _apply(self, fn, recurse=True):
        exact = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        if not self.in_checkpoint:
            self._compute_frequencies(fn(self._frequencies[0]).device)
        for name, before in exact.items():
            moved = getattr(self, name)
            if moved.dtype != before.dtype:
                setattr(self, name, before.to(moved.device))
        return self

    def forward(self, ids: Num[Tensor, "*b n axes"]) -> Float[Tensor, "*b n half 2"]:
        """cos and sin of id * frequency, fp32."""
        angles = []
        for index in range(len(self.axes)):
            frequencies = (
                getattr(self, f"freqs_{index}") if self.in_checkpoint else self._frequencies[index]
            )
            angles.append(ids[..., index, None].float() * frequencies.to(ids.device))
        angle = torch.cat(angles, -1)
        return torch.stack((angle.cos(), angle.sin()), -1)


def apply_rotary(
    x: Float[Tensor, "b h n d"], table: Float[Tensor, "*b1 n half 2"]
) -> Float[Tensor, "b h n d"]:
    """Rotate adjacent pairs: (x0 cos - x1 sin, x1 cos + x0 sin), in fp32 or wider.

    `table` is (N, d/2, 2) for all samples or (B, 1, N, d/2, 2) for each its own. Complex
    multiplication is ten times faster than the real form on CPU; a compiler fuses only the real
    form.
    """
    pairs = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():
        x0, x1 = pairs.unbind(-1)
        cos, sin = table.unbind(-1)
        return torch.stack((x0 * cos - x1 * sin, x1 * cos + x0 * sin), -1).flatten(-2)
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table)).flatten(
        -2
    )
