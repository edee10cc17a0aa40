"""Optimizer state in a checkpoint: one state, or a mapping by name for several optimizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.training.older_state import without_unused_parameters
from tinyflux_pl.training.optimizers import MuonAdamW

Optimizers = Sequence[torch.optim.Optimizer]
CURE = "use the optimizer of the run, or start another run: run=NAME, without resume"


def collect(names: tuple[str, ...], optimizers: Optimizers) -> dict[str, Any]:
    """The state of the only optimizer (no names), or name -> state."""
    if not names:
        return optimizers[0].state_dict()
    return {name: each.state_dict() for name, each in zip(names, optimizers, strict=True)}


def restore(
    names: tuple[str, ...], optimizers: Optimizers, state: dict[str, Any], where: str
) -> None:
    """Restore what `collect` returned; CheckpointMismatch if it does not fit.

    Learning rates and other options come from this run's configuration, not from the checkpoint.
    """
    if not names:
        _restore(optimizers[0], state, where)
        return
    if set(names) != state.keys():
        saved, expected = ", ".join(sorted(map(str, state))), ", ".join(names)
        what = f"the optimizers saved are {saved}; the run has {expected}"
        raise CheckpointMismatch(what, where=where, cure=CURE)
    for name, optimizer in zip(names, optimizers, strict=True):
        _restore(optimizer, state[name], where)


def _restore(optimizer: torch.optim.Optimizer, state: dict[str, Any], where: str) -> None:
    options_of_groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    try:
        if isinstance(optimizer, MuonAdamW):
            parts = {"muon": optimizer.muon, "adamw": optimizer.adamw}
            fitted = {
                name: without_unused_parameters(state[name], part.param_groups)
                for name, part in parts.items()
            }
        else:
            fitted = without_unused_parameters(state, optimizer.param_groups)
        optimizer.load_state_dict(fitted)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointMismatch(
            f"the optimizer's state does not fit: {error}", where=where, cure=CURE
        ) from error
    for group, options in zip(optimizer.param_groups, options_of_groups, strict=True):
        group.update(options)
