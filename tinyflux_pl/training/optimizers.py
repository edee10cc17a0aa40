"""Optimizers by what a parameter is: matrices, embeddings, and everything that must not decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def split_by_role(module: nn.Module) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Trainable parameters as (matrices of attention and MLPs, other matrices, norms / biases / gates).

    Muon's orthogonal updates are meant for the matrices inside the blocks (Jordan et al. 2024), not
    for those that read data or conditioning: embedders, modulation, expert heads, the output.
    """
    hidden, edge, plain = [], [], []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            plain.append(parameter)
        elif parameter.ndim == 2 and _inside_block(name.split(".")):
            hidden.append(parameter)
        else:
            edge.append(parameter)
    return hidden, edge, plain


def _inside_block(parts: list[str]) -> bool:
    inside = any(part.endswith("blocks") for part in parts)
    return inside and any(part == "attn" or part.endswith("mlp") for part in parts)


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

    One object, because Lightning counts a step for every optimizer. `lr` is AdamW's;
    `muon_lr` is matched to its RMS (adjust_lr_fn="match_rms_adamw", Liu et al. 2025).
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
        self.muon = torch.optim.Muon(
            hidden, lr=muon_lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        groups = [{"params": edge}, {"params": plain, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=lr, betas=tuple(betas), weight_decay=weight_decay, fused=True
        )
        super().__init__([{"params": hidden + edge + plain}], {})
        # The same dictionaries, so that a schedule that sets lr here sets it there.
        self.param_groups = self.muon.param_groups + self.adamw.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; the closure runs once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
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
