"""Group norms of tiles with the statistics of the whole picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# a norm -> mean and variance of each channel's group
Statistics = Mapping[nn.GroupNorm, tuple[Float[Tensor, " c"], Float[Tensor, " c"]]]


def measured(network: nn.Module, run: Callable[[], Any]) -> Statistics:
    """Statistics of all group norms inside `network` while `run` passes it one picture, fp32."""
    statistics: dict[nn.GroupNorm, tuple[Tensor, Tensor]] = {}

    def note(norm: Any, inputs: tuple[Tensor]) -> None:
        groups = inputs[0][0].float().reshape(norm.num_groups, -1)
        size = norm.num_channels // norm.num_groups
        mean, variance = groups.mean(1), groups.var(1, correction=0)
        statistics[norm] = mean.repeat_interleave(size), variance.repeat_interleave(size)

    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    handles = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return statistics


@contextmanager
def applied(statistics: Statistics) -> Iterator[None]:
    """Inside, the norms use the given statistics instead of those of their input."""
    for norm, (mean, variance) in statistics.items():
        norm.forward = partial(_normalised, norm, mean, variance)
    try:
        yield
    finally:
        for norm in statistics:
            del norm.forward


def _normalised(norm: nn.GroupNorm, mean: Tensor, variance: Tensor, x: Tensor) -> Tensor:
    weight, bias = norm.weight.float(), norm.bias.float()
    return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=norm.eps)
