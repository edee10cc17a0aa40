"""What has to be in memory at once: arithmetic on counts, types and shapes, before anything is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from tinyflux_pl.core.errors import MemoryPlanError

GIB = 2**30


@dataclass(frozen=True)
class Stage:
    """One piece of work: what it holds, in bytes, by name; `host` if that is not the accelerator's memory."""

    name: str
    rows: Mapping[str, int]
    host: bool = False

    @property
    def total(self) -> int:
        """Bytes in memory at the worst moment."""
        return sum(self.rows.values())


@dataclass(frozen=True)
class MemoryPlan:
    """The stages of a run, each with all that is in memory while it is at work."""

    stages: tuple[Stage, ...]

    def worst(self, host: bool = False) -> Stage:
        """The stage that needs most of the accelerator's memory, or of the host's."""
        return max((s for s in self.stages if s.host == host), key=lambda stage: stage.total)

    def require(self, available: int, *, host: bool, there: int = 0, where: str, cure: str) -> None:
        """Raise MemoryPlanError if a stage needs more than `available` bytes; `there` of them are in memory already."""
        worst = self.worst(host)
        if worst.total - there <= available:
            return
        largest = ", ".join(f"{what} {size(n)}" for what, n in sorted(worst.rows.items(), key=lambda row: -row[1])[:4])
        raise MemoryPlanError(
            f"the stage {worst.name!r} needs {size(worst.total)} ({largest}) and {size(available + there)} are free",
            where=where,
            cure=cure,
        )


@dataclass(frozen=True)
class TrainingState:
    """Bytes that stay for the whole of a run."""

    weights: int
    gradients: int
    optimizer: int
    averages: int
    trained: int  # of the weights

    def rows(self) -> dict[str, int]:
        """By name, without what is not there."""
        named = {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer}
        return {what: n for what, n in {**named, "averages": self.averages}.items() if n}

    @property
    def total(self) -> int:
        """Everything."""
        return sum(self.rows().values())

    @property
    def snapshot(self) -> int:
        """What a checkpoint holds: raw weights, optimizer, and averages of those that are trained."""
        return self.weights + self.optimizer + self.averages


def training_state(
    module: nn.Module, groups: Iterable[Mapping[str, Any]], *, averaged: bool = True, ranks: int = 1
) -> TrainingState:
    """The state of training a module (on the meta device, too) by an optimizer of these `param_groups`.

    The averages are kept in fp32; with more than one rank each gradient is held twice, once to be summed.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = sum(kept_values(group) * p.nbytes for group in groups for p in group["params"])
    return TrainingState(
        weights=sum(t.nbytes for t in {id(t): t for t in (*module.parameters(), *module.buffers())}.values()),
        gradients=sum(p.nbytes for p in trained) * (2 if ranks > 1 else 1),
        optimizer=optimizer,
        averages=sum(p.numel() * 4 for p in trained) if averaged else 0,
        trained=sum(p.nbytes for p in trained),
    )


def kept_values(group: Mapping[str, Any]) -> int:
    """Values that an optimizer keeps for each parameter of a group: two moments for Adam's kind, one for a momentum."""
    if "betas" in group:
        return 3 if group.get("amsgrad") else 2
    return 1 if group.get("momentum") else 0


def training(state: TrainingState, working: Mapping[str, int], *, host: bool) -> MemoryPlan:
    """The stages step, validation, preview (for those that `working` gives the bytes of) and save.

    While averages stand in for the weights, the raw ones are kept beside them. A save first copies all that
    it writes into the host's memory; `host` says that the run computes there.
    """
    aside = {"raw weights set aside": state.trained} if state.averages else {}
    stages = [
        Stage(name, {**state.rows(), **(aside if name != "step" else {}), "activations": n}, host)
        for name, n in working.items()
    ]
    stages.append(Stage("save", {**(state.rows() if host else {}), "copy to write": state.snapshot}, host=True))
    return MemoryPlan(tuple(stages))


def generation(
    denoiser: int,
    text: Mapping[str, int],
    codec: int,
    *,
    drawing: int,
    decoding: int,
    sequential: bool = False,
    host: bool,
) -> MemoryPlan:
    """The stages text, denoise and decode, from bytes of weights and the activations of the last two.

    What was read stays to the end; `sequential` encoders are there one at a time and go.
    """
    told = {f"text: {name}": n for name, n in text.items()}
    largest = dict(sorted(told.items(), key=lambda row: row[1])[-1:])
    kept = {"denoiser": denoiser, **({} if sequential else told)}
    return MemoryPlan(
        (
            Stage("text", {"denoiser": denoiser, **(largest if sequential else told)}, host),
            Stage("denoise", {**kept, "activations": drawing}, host),
            Stage("decode", {**kept, "codec": codec, "activations": decoding}, host),
        )
    )


def size(count: int) -> str:
    """Bytes for a reader."""
    for unit, name in ((GIB, "GiB"), (2**20, "MiB")):
        if count >= unit:
            return f"{count / unit:.2f} {name}" if unit == GIB else f"{count / unit:.1f} {name}"
    return f"{count / 1024:.1f} KiB"
