"""Averages of the weights (EMA), in fp32 beside the raw weights."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion import averaging
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.step_callback import StepCallback


class AveragedWeights(StepCallback):
    """EMA of the trainable parameters, updated once per optimizer step.

    `decay` follows the warm-up min(decay, (1 + n) / (10 + n)), with n the run's own count of steps,
    so that a resumed run averages as an uninterrupted one. A step that the guard rejects changes no
    average, and weights that are not finite never enter. `excluded` are prefixes of parameters'
    names that have no average, such as a critic's, which serves training alone.
    Validation, previews and final images use the averages inside `applied`, which always restores
    the raw weights; a checkpoint written in there uses `raw_weights`.
    """

    def __init__(
        self, decay: float = 0.999, warmup: bool = True, excluded: Sequence[str] = ()
    ) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(
                f"decay is {decay}",
                where="callbacks.ema.decay",
                cure="at least 0 and below 1, such as 0.995: the fraction that stays at each step",
            )
        self.decay = decay
        self.warmup = warmup
        self.excluded = tuple(excluded)
        self.averages: dict[str, Tensor] = {}
        self.updates = 0  # the step of the averages
        self._raw: dict[str, Tensor] = {}  # the raw weights while the module holds the averages

    def on_fit_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        self.updates = pl_module.step
        if not self.averages:
            self.averages = {
                k: p.detach().float().clone() for k, p in self.parameters(pl_module.network)
            }
        self.averages = {k: v.to(pl_module.device) for k, v in self.averages.items()}

    def on_step(self, trainer: Trainer, pl_module: FlowModule) -> None:
        self.updates = pl_module.step
        kind = "warmup" if self.warmup else "constant"
        decay = averaging.decay_at(self.updates - 1, self.decay, kind)
        values = [p.detach() for _, p in self.parameters(pl_module.network)]
        accepted = None if pl_module.guard is None else pl_module.guard.step_accepted
        averaging.lerp_(list(self.averages.values()), values, decay, accepted)

    def parameters(self, module: nn.Module) -> list[tuple[str, nn.Parameter]]:
        """The parameters that have an average, by name."""
        named = module.named_parameters()
        return [(k, p) for k, p in named if p.requires_grad and not k.startswith(self.excluded)]

    @torch.no_grad()
    def distance(self, denoiser: nn.Module) -> Tensor:
        """||averages - raw|| / ||raw|| over the averaged parameters, a scalar on the device."""
        raw = self.parameters(denoiser)
        # One parameter after the other: no second copy of the network in memory.
        distances = [(self.averages[name] - value.float()).norm() for name, value in raw]
        norms = [value.float().norm() for _, value in raw]
        return torch.stack(distances).norm() / torch.stack(norms).norm()

    @contextmanager
    def applied(self, denoiser: nn.Module) -> Generator[None]:
        """Inside, the averages replace the raw weights."""
        if self._raw:  # nested: already replaced
            yield
            return
        self._raw = {k: p.detach().clone() for k, p in self.parameters(denoiser)}
        try:
            self._copy(self.averages, denoiser)
            yield
        finally:
            raw, self._raw = self._raw, {}
            self._copy(raw, denoiser)

    def raw_weights(self, denoiser: nn.Module) -> dict[str, Tensor]:
        """The state dict with the raw weights, also inside `applied`."""
        return {**denoiser.state_dict(), **self._raw}

    def weights(self, denoiser: nn.Module) -> dict[str, Tensor]:
        """The state dict with the averages (fp32)."""
        return {**denoiser.state_dict(), **self.averages}

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor], denoiser: nn.Module) -> None:
        for name, parameter in self.parameters(denoiser):
            parameter.copy_(values[name])
