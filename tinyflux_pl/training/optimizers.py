"""Optimizers by what a parameter is: matrices, embeddings, and everything that must not decay. And how one skips."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.training.muon import Muon

FUSED = ("linear1", "linear2")  # of Flux's single blocks: attention and MLP in one matrix
UNET_MATRICES = ("attn1", "attn2", "ff")  # of diffusers' transformer blocks below `attentions`
UNET_KERNELS = ("conv1", "conv2")  # of its residual blocks


def split_by_role(module: nn.Module) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Trainable parameters as (matrices inside blocks, other matrices, norms / biases / gates).

    Muon's orthogonal updates are meant for the matrices inside the blocks (Jordan et al. 2024), not
    for those that read data or conditioning: embedders, modulation, expert heads, the output. In a UNet
    of diffusers these are attention, feed-forward and the kernels of the residual blocks.
    """
    hidden, edge, plain = [], [], []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            plain.append(parameter)
        elif _inside_block(name.split("."), parameter.ndim):
            hidden.append(parameter)
        else:
            edge.append(parameter)
    return hidden, edge, plain


def _inside_block(parts: list[str], dimensions: int) -> bool:
    """Whether Muon takes the weight of this name, a matrix or a kernel."""
    if "resnets" in parts:
        return dimensions == 4 and parts[-2] in UNET_KERNELS
    if dimensions != 2 or not any(part.endswith(("blocks", "attentions")) for part in parts):
        return False
    if "attentions" in parts:
        return any(part in UNET_MATRICES for part in parts)
    return any(part.endswith(("attn", "mlp")) or part in FUSED for part in parts)


def made_for(module: nn.Module, factory: Callable[..., torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """The factory's optimizer: ours take the module, torch's own the parameters that are trained.

    ConfigError for options that it refuses.
    """
    made = getattr(factory, "func", factory)
    torchs = inspect.isclass(made) and f"{made.__module__}.".startswith("torch.optim.")
    try:
        return factory([p for p in module.parameters() if p.requires_grad] if torchs else module)
    except ValueError as error:
        cure = "rates and weight_decay of 0 or more, betas and momentum of 0 or more and below 1"
        raise ConfigError(str(error), where="optimizer", cure=cure) from error


def refuse(optimizer: torch.optim.Optimizer, bad: Tensor) -> None:
    """Let the next step leave weights and state to the bit as they are where `bad` (fp32 scalar, 0 or 1) is 1.

    MuonAdamW and the fused forms of Adam and AdamW read `bad` on the device, and the host does not wait.
    For any other optimizer the host reads it, once a step: on a GPU it waits there for the backward pass.
    """
    fused_adam = isinstance(optimizer, torch.optim.Adam) and all(g["fused"] for g in optimizer.param_groups)
    if isinstance(optimizer, MuonAdamW) or fused_adam:
        optimizer.found_inf = bad  # torch's own name: gradient scalers use it
    elif bool(bad):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # which every torch optimizer passes over, decay included


def adamw(
    module: nn.Module, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.01
) -> torch.optim.Optimizer:
    """AdamW in fused form; norms, biases and gates are not decayed."""
    hidden, edge, plain = split_by_role(module)
    groups = [{"params": hidden + edge}, {"params": plain, "weight_decay": 0.0}]
    groups = [g for g in groups if g["params"]]
    return torch.optim.AdamW(groups, lr=lr, betas=tuple(betas), weight_decay=weight_decay, fused=True)


class MuonAdamW(torch.optim.Optimizer):
    """Muon on hidden matrices and AdamW on the rest, as one optimizer with one step count.

    One object, because Lightning counts a step for every optimizer. `lr` is AdamW's; `muon_lr` is matched to its RMS.
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
        hidden, edge, plain = split_by_role(module)
        if not hidden:
            raise ConfigError("no matrices inside blocks for Muon", where="optimizer=muon", cure="optimizer=adamw")
        self.muon = Muon(hidden, lr=muon_lr, momentum=momentum, weight_decay=weight_decay)
        groups = [{"params": edge}, {"params": plain, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=lr, betas=tuple(betas), weight_decay=weight_decay, fused=True
        )
        super().__init__([{"params": hidden + edge + plain}], {})
        # The same dictionaries, so that a schedule that sets lr here sets it there.
        self.param_groups = self.muon.param_groups + self.adamw.param_groups
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both, or of neither where `found_inf` is 1; the closure runs once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.found_inf = self.adamw.found_inf = self.found_inf
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Both states, apart."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both and share their groups again."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = self.muon.param_groups + self.adamw.param_groups
