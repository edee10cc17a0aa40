"""Factors of input channels folded into the layers before, instead of applied at run time.

X = n (1 + c) + b becomes X / s by dividing the rows of the linear layers that give c and b, or the
norm's weight; values of attention, by dividing the rows that give them. Neutral before rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tinyflux_pl.core.divisible_inputs import DivisibleInput, Source
from tinyflux_pl.nets.norms import RMSNorm

AT_RUN_TIME = "at run time"


@dataclass
class Folding:
    """The changes to weights, by module path.

    `columns` (K,) multiply a layer's input channels. `gains` and `offsets` (N,) change what a
    module computes to gain * output + offset. `divided` says of each layer with factors where its
    input is divided.
    """

    columns: dict[str, Tensor] = field(default_factory=dict)
    gains: dict[str, Tensor] = field(default_factory=dict)
    offsets: dict[str, Tensor] = field(default_factory=dict)
    divided: dict[str, str] = field(default_factory=dict)

    def applied(self, path: str, linear: nn.Linear) -> nn.Linear:
        """The layer with its changes, in fp32; itself without any."""
        if path not in self.columns and path not in self.gains:
            return linear
        weight, bias = linear.weight.detach().float(), linear.bias
        if path in self.columns:
            weight = weight * self.columns[path].to(weight.device)
        if path in self.gains:
            gain, offset = (each[path].to(weight.device) for each in (self.gains, self.offsets))
            weight = weight * gain[:, None]
            bias = bias if bias is None else nn.Parameter(bias.detach().float() * gain + offset)
        changed = nn.Linear(1, 1, device="meta")
        changed.in_features, changed.out_features = linear.in_features, linear.out_features
        changed.weight, changed.bias = nn.Parameter(weight), bias
        return changed.requires_grad_(False)

    def restored(self, path: str, weight: Tensor) -> Tensor:
        """A changed weight (N, K) as it stands for the layer's own."""
        if path in self.columns:
            weight = weight / self.columns[path].to(weight.device)
        if path in self.gains:
            weight = weight / self.gains[path].to(weight.device)[:, None]
        return weight

    @torch.no_grad()
    def change_unpacked(self, network: nn.Module, packed: Collection[str]) -> None:
        """Change the modules that are not packed, in place and in their own dtype."""
        for path in self.gains:
            module = network.get_submodule(path)
            if path in packed:
                continue
            gain, offset = self.gains[path], self.offsets[path]
            weight, bias = module.get_parameter("weight"), module._parameters.get("bias")
            gain, offset = gain.to(weight.device), offset.to(weight.device)
            rows = gain if weight.ndim == 1 else gain[:, None]
            weight.copy_(weight.float() * rows)
            if bias is not None:
                bias.copy_(bias.float() * gain + offset)


def folded(
    network: nn.Module,
    factors: Mapping[str, Tensor],
    inputs: Iterable[DivisibleInput],
    packed: Collection[str],
) -> Folding:
    """The changes that divide layer inputs by their factors, as far as that is possible.

    An input stays as it is, and is divided at run time, unless all layers that read it are among
    `packed` and have the same factors, and its sources are plain layers and norms.
    """
    folding = Folding(divided=dict.fromkeys(factors, AT_RUN_TIME))
    for each in inputs:
        first, *more = each.layers
        obstacle = _obstacle(network, factors, each, packed)
        if obstacle:
            reasons = {name: f"{AT_RUN_TIME}: {obstacle}" for name in each.layers}
            folding.divided |= {k: v for k, v in reasons.items() if k in factors}
            continue
        values = factors[first].float()
        if any(source.one_added for source in each.sources):
            # 1 + c is computed in the network's dtype: c of a channel that is divided by s >> 1
            # would be near -1. A common multiple of the factors changes nothing else.
            values = values / values.max()
        for source in each.sources:
            _divide(folding, network.get_submodule(source.module), source, values)
        where = " + ".join(dict.fromkeys(source.module for source in each.sources))
        folding.columns |= dict.fromkeys((first, *more), values)
        folding.divided |= dict.fromkeys((first, *more), f"in {where}")
    return folding


def _obstacle(
    network: nn.Module,
    factors: Mapping[str, Tensor],
    each: DivisibleInput,
    packed: Collection[str],
) -> str:
    """The reason why an input cannot be divided where it is computed; "" if it can."""
    first, *more = each.layers
    for name in each.layers:
        if name not in factors or name not in packed:
            return f"{name} reads it too and is not balanced"
    for name in more:
        if not torch.equal(factors[name], factors[first]):
            return f"{name} reads it too and has other factors"
    for source in each.sources:
        module = network.get_submodule(source.module)
        if type(module) is RMSNorm and not source.one_added and source.parts == 1:
            continue
        if type(module) is not nn.Linear:  # an adapter's, which adds to the same channels
            return f"{source.module} is a {type(module).__name__}"
        if source.one_added and module.bias is None:
            return f"{source.module} has no bias"
    return ""


def _divide(folding: Folding, module: nn.Module, source: Source, factors: Tensor) -> None:
    path, weight = source.module, module.get_parameter("weight")
    if path not in folding.gains:
        folding.gains[path] = torch.ones(len(weight), device=factors.device)
        folding.offsets[path] = torch.zeros(len(weight), device=factors.device)
    gain = folding.gains[path].chunk(source.parts)[source.part]
    gain /= factors
    if source.one_added:  # (1 + c) / s = 1 + (c / s + 1 / s - 1)
        folding.offsets[path].chunk(source.parts)[source.part].add_(1 / factors - 1)
