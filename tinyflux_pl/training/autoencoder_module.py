"""The LightningModule of an autoencoder and its critic: two optimizers, stepped manually."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from tinyflux_pl.codecs.autoencoder_networks import AutoencoderNetworks
from tinyflux_pl.core.types import Batch
from tinyflux_pl.methods.full import Full
from tinyflux_pl.objectives.autoencoder import AutoencoderObjective
from tinyflux_pl.training.manual_guard import ManualGuard
from tinyflux_pl.training.optimizers import build_optimizer


class AutoencoderModule(LightningModule):
    """Networks, their objective and an optimizer for each, in the step protocol of FlowModule.

    Lightning neither clips, accumulates nor counts for manual optimisation: the module does, over
    `accumulation` micro-batches a step. In a step both gradients are computed before either
    optimizer moves; each is clipped and judged by the guard on its own.
    """

    optimizer_names = ("autoencoder", "critic")
    method = Full()

    def __init__(
        self,
        networks: AutoencoderNetworks,
        objective: AutoencoderObjective,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        schedule: Callable[[int], float],
        start_step: int = 0,
        clip: float | None = 1.0,
        guard: ManualGuard | None = None,
        accumulation: int = 1,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = networks
        self.objective = objective
        self.optimizer = optimizer
        self.schedule = schedule
        self.clip = clip
        self.guard = guard
        self.accumulation = accumulation
        self.step = self.start_step = start_step
        self.step_complete = True
        self.step_metrics: dict[str, Tensor] = {}
        self._taken = 0  # micro-batches of the current step
        self._losses: dict[str, Tensor] = {}  # of the current step, by optimizer

    def training_step(self, batch: Batch, _: int) -> None:
        self.step_metrics = {}
        for name, _, terms in self.objective.passes(self.network, batch, self.step):
            loss = self._backward(name, terms)
            first = name == "autoencoder"
            self.step_metrics |= {"loss": loss} if first else {}
            prefix = "" if first else f"{name}_"
            self.step_metrics |= {f"{prefix}{k}": term.detach() for k, term in terms.items()}
        self._taken += 1
        if self._taken == self.accumulation:
            self._step_optimizers()

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.step_complete = False

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        optimizers = [
            build_optimizer(network, self.optimizer)
            for network in (self.network.autoencoder, self.network.critic)
        ]
        self._base_rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
        return optimizers

    def _backward(self, name: str, terms: dict[str, Tensor]) -> Tensor:
        """Add a micro-batch's share to the gradient of the step; returns its loss."""
        loss = torch.stack(list(terms.values())).sum()
        share = loss / self.accumulation
        self.manual_backward(share)
        self._losses[name] = self._losses.get(name, 0) + share.detach()
        return loss.detach()

    def _step_optimizers(self) -> None:
        """Clip, check and step each optimizer that has a gradient, then count one step."""
        networks = (self.network.autoencoder, self.network.critic)
        optimizers = self.optimizers()
        named = zip(self.optimizer_names, networks, optimizers, self._base_rates, strict=True)
        active = [parts for parts in named if parts[0] in self._losses]
        for name, network, optimizer, rates in active:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * self.schedule(self.step)
            norm = self._clipped(network)
            key = "gradient_norm" if name == "autoencoder" else f"{name}_gradient_norm"
            self.step_metrics[key] = norm
            if self.guard is not None:
                loss, limited = self._losses[name], name == "autoencoder"
                self.guard.check_optimizer_step(
                    name, optimizer.optimizer, loss, norm, self.step, limited=limited
                )
        for _, _, optimizer, _ in active:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self._taken, self._losses = 0, {}

    def _clipped(self, network: nn.Module) -> Tensor:
        """The norm of the network's gradient, which is clipped to `clip`."""
        parameters = [p for p in network.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if self.clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
        return norm
