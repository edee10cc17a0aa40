"""Parameter groups (matrices, embeddings, no decay), optimizer factories, and step skipping."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.training.muon import Muon

# In Flux's single blocks attention and MLP share these matrices.
FUSED_MATRICES = ("linear1", "linear2")
# In a UNet of diffusers: of the transformer blocks below `attentions`, and of the residual blocks.
UNET_MATRICES = ("attn1", "attn2", "ff")
UNET_KERNELS = ("conv1", "conv2")


def split_by_role(module: nn.Module) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Trainable parameters as (matrices inside blocks, other matrices, no decay).

    Muon's orthogonal updates are meant for the matrices inside the blocks (Jordan et al. 2024), not
    for those that read data or conditioning: embedders, modulation, expert heads, the output. In a
    UNet of diffusers the former are attention, feed-forward and the residual blocks' kernels.
    Norms, biases and gates are not decayed.
    """
    block_matrices: list[Tensor] = []
    other_matrices: list[Tensor] = []
    no_decay: list[Tensor] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            no_decay.append(parameter)
        elif _inside_block(name.split("."), parameter.ndim):
            block_matrices.append(parameter)
        else:
            other_matrices.append(parameter)
    return block_matrices, other_matrices, no_decay


def _inside_block(parts: list[str], dimensions: int) -> bool:
    """True for a matrix or kernel that Muon updates, by the parts of its name."""
    if "resnets" in parts:
        return dimensions == 4 and parts[-2] in UNET_KERNELS
    if dimensions != 2 or not any(part.endswith(("blocks", "attentions")) for part in parts):
        return False
    if "attentions" in parts:
        return any(part in UNET_MATRICES for part in parts)
    return any(part.endswith(("attn", "mlp")) or part in FUSED_MATRICES for part in parts)


def build_optimizer(
    module: nn.Module,
    factory: Callable[..., torch.optim.Optimizer],
    rates: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """Call the factory with the trainable parameters (torch's classes) or the module (ours).

    `rates` are factors on the learning rate by parameter name. ConfigError for options that the
    optimizer refuses.
    """
    optimizer = _built(module, factory)
    if rates:
        _scale_rates(optimizer, module, rates)
    return optimizer


def _built(
    module: nn.Module, factory: Callable[..., torch.optim.Optimizer]
) -> torch.optim.Optimizer:
    target = factory.func if isinstance(factory, partial) else factory
    is_torch_class = inspect.isclass(target) and f"{target.__module__}.".startswith("torch.optim.")
    try:
        if is_torch_class:
            return factory([p for p in module.parameters() if p.requires_grad])
        return factory(module)
    except ValueError as error:
        raise ConfigError(
            str(error),
            where="optimizer",
            cure="rates and weight_decay of 0 or more, betas and momentum of 0 or more and below 1",
        ) from error


def _scale_rates(
    optimizer: torch.optim.Optimizer, module: nn.Module, rates: Mapping[str, float]
) -> None:
    """Move parameters with a rate factor into groups of their own; ConfigError for Muon."""
    if isinstance(optimizer, MuonAdamW):
        raise ConfigError(
            "Muon has one rate for all matrices",
            where="optimizer=muon, with lr_scale in method.targets",
            cure="optimizer=adamw",
        )
    factors = {id(module.get_parameter(name)): factor for name, factor in rates.items()}
    for group in list(optimizer.param_groups):
        options = {key: value for key, value in group.items() if key != "params"}
        by_factor: dict[float, list[Tensor]] = {}
        for parameter in group["params"]:
            by_factor.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
        first, *scaled_groups = by_factor.items()
        group["params"], group["lr"] = first[1], options["lr"] * first[0]
        for factor, parameters in scaled_groups:
            scaled = {**options, "params": parameters, "lr": options["lr"] * factor}
            optimizer.add_param_group(scaled)


def skip_step_if(optimizer: torch.optim.Optimizer, skip: Tensor) -> None:
    """Make the next step a bit-exact no-op if `skip` (fp32 scalar) is 1 instead of 0.

    MuonAdamW and fused Adam and AdamW read `skip` on the device, and the host does not wait. For
    any other optimizer the host reads it once a step: on a GPU it waits there for the backward
    pass.
    """
    is_adam = isinstance(optimizer, torch.optim.Adam)
    is_fused_adam = is_adam and all(group["fused"] for group in optimizer.param_groups)
    if isinstance(optimizer, MuonAdamW) or is_fused_adam:
        optimizer.found_inf = skip  # torch's own name: gradient scalers use it
    elif bool(skip):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # torch optimizers skip these, weight decay included


def adamw(
    module: nn.Module,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.01,
) -> torch.optim.Optimizer:
    """Fused AdamW; norms, biases and gates are not decayed."""
    block_matrices, other_matrices, no_decay = split_by_role(module)
    groups = [
        {"params": block_matrices + other_matrices},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    return torch.optim.AdamW(
        groups, lr=lr, betas=tuple(betas), weight_decay=weight_decay, fused=True
    )


class MuonAdamW(torch.optim.Optimizer):
    """Muon on the matrices inside blocks and AdamW on the rest, as one optimizer.

    One object, because Lightning counts a step for every optimizer. `lr` is AdamW's; `muon_lr` is
    scaled to match the RMS of AdamW's updates.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float = 1e-3,
        muon_lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        block_matrices, other_matrices, no_decay = split_by_role(module)
        if not block_matrices:
            raise ConfigError(
                "no matrices inside blocks for Muon", where="optimizer=muon", cure="optimizer=adamw"
            )
        self.muon = Muon(block_matrices, lr=muon_lr, momentum=momentum, weight_decay=weight_decay)
        groups = [{"params": other_matrices}, {"params": no_decay, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(
            [g for g in groups if g["params"]],
            lr=lr,
            betas=tuple(betas),
            weight_decay=weight_decay,
            fused=True,
        )
        super().__init__([{"params": block_matrices + other_matrices + no_decay}], {})
        # The same dictionaries, so that a schedule that sets lr here sets it in both.
        self.param_groups = self.muon.param_groups + self.adamw.param_groups
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step both, or neither where `found_inf` is 1; the closure runs once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.found_inf = self.adamw.found_inf = self.found_inf
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The two states under `muon` and `adamw`."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both and share their groups again."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = self.muon.param_groups + self.adamw.param_groups
