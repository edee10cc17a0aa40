"""The kinds of module that a run can train; the objective names its kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tinyflux_pl.app.fitting.autoencoder_kind import AutoencoderKind
from tinyflux_pl.app.fitting.denoiser_kind import DenoiserKind

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from tinyflux_pl.app.caches.sources import Source
    from tinyflux_pl.app.components import Parts
    from tinyflux_pl.checkpoints.directory import Checkpoint
    from tinyflux_pl.core.types import Batch
    from tinyflux_pl.training.datamodule import CachedLatents
    from tinyflux_pl.training.ema import AveragedWeights
    from tinyflux_pl.training.measures import Measure
    from tinyflux_pl.training.nonfinite_guard import NonFiniteGuard
    from tinyflux_pl.training.preview import Preview
    from tinyflux_pl.training.replay_bundle import ReplayBundle


class ModuleKind(Protocol):
    """Training, previews, validation and final measurements of one kind of network.

    `sampler` draws the previews, with `quick` in as few steps as a dry run needs. `manual_steps`:
    the module accumulates by itself, and the trainer must not. `not_averaged`: prefixes of the
    names of parameters that training alone reads. `network` is the one that a
    checkpoint describes, newly initialised, with the names of the tensors that it holds.
    """

    manual_steps: bool
    not_averaged: tuple[str, ...]

    def network(self, checkpoint: Checkpoint) -> tuple[Any, frozenset[str]]: ...
    def guard(self, bundle: ReplayBundle, parts: Parts) -> NonFiniteGuard: ...
    def module(
        self, parts: Parts, network: Any, start: int, guard: NonFiniteGuard
    ) -> LightningModule: ...
    def dry_run_start(self, parts: Parts, start: int) -> int: ...
    def sampler(self, parts: Parts, sources: Sequence[Source], *, quick: bool = False) -> Any: ...
    def preview(
        self,
        parts: Parts,
        sources: Sequence[Source],
        sampler: Any,
        average: AveragedWeights,
        folder: Path,
    ) -> Preview: ...
    def measures(self, parts: Parts, datamodule: CachedLatents) -> list[Measure]: ...
    def grid(self, parts: Parts) -> Any: ...
    def measure(
        self,
        parts: Parts,
        sources: Sequence[Source],
        network: Any,
        average: AveragedWeights,
        sampler: Any,
        validation: Iterable[Batch],
    ) -> dict[str, Any]: ...


KINDS: dict[str, ModuleKind] = {"denoiser": DenoiserKind(), "autoencoder": AutoencoderKind()}


def kind_of(parts: Parts) -> ModuleKind:
    """The kind that the run's objective trains."""
    return KINDS[parts.trains]
