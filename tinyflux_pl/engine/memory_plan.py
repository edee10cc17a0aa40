"""Memory plans: bytes by stage, from counts, dtypes and shapes, before anything is allocated."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from tinyflux_pl.core.errors import MemoryPlanError

GIB = 2**30
CONTEXT = "CUDA context"


@dataclass(frozen=True)
class Stage:
    """A stage of a run: bytes in memory, by name.

    `host` if they are not in the accelerator's memory.
    """

    name: str
    rows: Mapping[str, int]
    host: bool = False

    @property
    def total(self) -> int:
        """Bytes in memory at the peak."""
        return sum(self.rows.values())


@dataclass(frozen=True)
class MemoryPlan:
    """The stages of a run, each with everything in memory during it."""

    stages: tuple[Stage, ...]

    def worst(self, host: bool = False) -> Stage:
        """The stage with the highest peak in the accelerator's memory, or in the host's."""
        stages = (stage for stage in self.stages if stage.host == host)
        return max(stages, key=lambda stage: stage.total)

    def reserving(self, context: int) -> MemoryPlan:
        """The plan with the bytes of the CUDA context added to each stage on the accelerator."""
        rows = {CONTEXT: context} if context else {}
        stages = (s if s.host else replace(s, rows={**s.rows, **rows}) for s in self.stages)
        return MemoryPlan(tuple(stages))

    def require(self, available: int, *, host: bool, there: int = 0, where: str, cure: str) -> None:
        """Raise MemoryPlanError if a stage plus allocated bytes (`there`) exceeds `available`."""
        worst = self.worst(host)
        if worst.total - there <= available:
            return
        rows = sorted(worst.rows.items(), key=lambda row: -row[1])
        largest = ", ".join(f"{name} {size(count)}" for name, count in rows[:4])
        needed = f"{size(worst.total)} ({largest})"
        free = size(available + there)
        raise MemoryPlanError(
            f"the stage {worst.name!r} needs {needed} and {free} are free",
            where=where,
            cure=cure,
        )


@dataclass(frozen=True)
class TrainingState:
    """Bytes that stay in memory for a whole run."""

    weights: int
    gradients: int
    optimizer: int
    averages: int
    trained: int  # of the weights
    saved: int  # of the weights, in a checkpoint

    def rows(self) -> dict[str, int]:
        """Bytes by name, without zeros."""
        rows = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "averages": self.averages,
        }
        return {name: count for name, count in rows.items() if count}

    @property
    def total(self) -> int:
        """Bytes of all rows."""
        return sum(self.rows().values())

    @property
    def snapshot(self) -> int:
        """Bytes of a checkpoint: weights, optimizer state and averages."""
        return self.saved + self.optimizer + self.averages


def training_state(
    module: nn.Module,
    groups: Iterable[Mapping[str, Any]],
    saved: Collection[str] | None = None,
    *,
    averaged: bool = True,
    ranks: int = 1,
) -> TrainingState:
    """Training state of a module, also on the meta device, with an optimizer.

    `param_groups` are the optimizer's; `saved` are the names that a checkpoint stores (None: all).
    Averages are fp32; with more than one rank each gradient exists twice, once as a buffer to sum.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = sum(
        values_per_parameter(group) * p.nbytes for group in groups for p in group["params"]
    )
    weights = weight_bytes(module)
    state = module.state_dict()
    return TrainingState(
        weights=weights,
        gradients=sum(p.nbytes for p in trained) * (2 if ranks > 1 else 1),
        optimizer=optimizer,
        averages=sum(p.numel() * 4 for p in trained) if averaged else 0,
        trained=sum(p.nbytes for p in trained),
        saved=weights if saved is None else sum(state[name].nbytes for name in saved),
    )


def weight_bytes(module: nn.Module | None) -> int:
    """Bytes of a module's parameters and buffers, each counted once; 0 without a module."""
    if module is None:
        return 0
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def values_per_parameter(group: Mapping[str, Any]) -> int:
    """State values of an optimizer per parameter value: two moments for Adam, one for momentum."""
    if "betas" in group:
        return 3 if group.get("amsgrad") else 2
    return 1 if group.get("momentum") else 0


def training(state: TrainingState, working: Mapping[str, int], *, host: bool) -> MemoryPlan:
    """Memory stages of training: those of `working`, and the save.

    `working` maps a name (step, validation, preview) to bytes of activations. While the module has
    the averages, a copy of the raw weights exists. A save first copies everything it writes to the
    host; `host` says that the run computes there.
    """
    stages = []
    for name, activations in working.items():
        rows = state.rows()
        if state.averages and name != "step":
            rows["raw weights set aside"] = state.trained
        stages.append(Stage(name, {**rows, "activations": activations}, host))
    on_host = state.rows() if host else {}
    stages.append(Stage("save", {**on_host, "copy to write": state.snapshot}, host=True))
    return MemoryPlan(tuple(stages))


def size(count: int) -> str:
    """Format bytes as KiB, MiB or GiB."""
    for unit, name in ((GIB, "GiB"), (2**20, "MiB")):
        if count >= unit:
            return f"{count / unit:.2f} {name}" if unit == GIB else f"{count / unit:.1f} {name}"
    return f"{count / 1024:.1f} KiB"
