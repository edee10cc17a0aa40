"""Training an autoencoder: AutoencoderModule, reconstructions of held-out pictures, their PSNR."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.caches.sources import Source, datasets
from tinyflux_pl.app.components import Parts
from tinyflux_pl.config.build import build

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from tinyflux_pl.checkpoints.directory import Checkpoint
    from tinyflux_pl.core.types import Batch
    from tinyflux_pl.sampling.reconstructions import ReconstructionSampler
    from tinyflux_pl.training.datamodule import CachedLatents
    from tinyflux_pl.training.ema import AveragedWeights
    from tinyflux_pl.training.manual_guard import ManualGuard
    from tinyflux_pl.training.measures import Measure
    from tinyflux_pl.training.preview import Preview
    from tinyflux_pl.training.replay_bundle import ReplayBundle

MEASURED_STEP = 3  # of a dry run, whose memory is measured


class AutoencoderKind:
    """Implements app.fitting.module_kinds.ModuleKind for autoencoders."""

    manual_steps = True
    not_averaged = ("critic.",)

    def network(self, checkpoint: Checkpoint) -> tuple[Any, frozenset[str]]:
        """The described autoencoder and critic."""
        from tinyflux_pl.inference.described_autoencoder import networks

        return networks(checkpoint)

    def guard(self, bundle: ReplayBundle, parts: Parts) -> ManualGuard:
        """A guard that checks the step of each optimizer separately."""
        from tinyflux_pl.training.manual_guard import ManualGuard

        keys = parts.config.callbacks
        accumulation = int(parts.config.hardware.accumulation)
        return ManualGuard(
            bundle, keys.log_every_steps, accumulation=accumulation, **keys.guard.plain
        )

    def module(self, parts: Parts, network: Any, start: int, guard: ManualGuard) -> LightningModule:
        """An AutoencoderModule for the steps from `start` on."""
        from tinyflux_pl.training.autoencoder_module import AutoencoderModule

        config = parts.config
        objective: Any = parts.objective(parts.text.null(), parts.experts.values())
        return AutoencoderModule(
            network,
            objective,
            build(config.optimizer, "optimizer"),
            build(config.schedule, "schedule"),
            start,
            config.callbacks.clip,
            guard,
            int(config.hardware.accumulation),
        )

    def dry_run_start(self, parts: Parts, start: int) -> int:
        """The start step at which the measured step has the critic and its penalty."""
        objective: Any = parts.objective(None, ())
        return objective.heaviest_step(start, MEASURED_STEP)

    def sampler(
        self, parts: Parts, sources: Sequence[Source], *, quick: bool = False
    ) -> ReconstructionSampler:
        """Reconstructions of the first validation pictures."""
        from tinyflux_pl.sampling.reconstructions import ReconstructionSampler

        count = parts.config.callbacks.preview.count
        validation = sources[0].validation.store
        held_out = datasets(list(sources[:1]), False)[1]
        rows = held_out.__getitems__(list(range(min(count, len(validation)))))
        return ReconstructionSampler(rows.latents, parts.config.hardware.drawn_at_once)

    def preview(
        self,
        parts: Parts,
        sources: Sequence[Source],
        sampler: ReconstructionSampler,
        average: AveragedWeights,
        folder: Path,
    ) -> Preview:
        """Each held-out picture beside its reconstruction."""
        from tinyflux_pl.training.preview import Preview

        keys, store = parts.config.callbacks.preview, sources[0].validation.store
        captions = store.captions(list(range(len(sampler.latents))))
        originals = parts.codec.decode(sampler.latents.float())
        return Preview(
            folder,
            sampler,
            captions,
            average,
            every_steps=keys.every_steps,
            seed=parts.config.seed,
            reference_images=originals,
        )

    def measures(self, parts: Parts, datamodule: CachedLatents) -> list[Measure]:
        """No further measures."""
        return []

    def grid(self, parts: Parts) -> Any:
        """Errors of reconstructions."""
        from tinyflux_pl.objectives.reconstruction_errors import ReconstructionErrors

        return ReconstructionErrors()

    def measure(
        self,
        parts: Parts,
        sources: Sequence[Source],
        network: Any,
        average: AveragedWeights,
        sampler: Any,
        validation: Iterable[Batch],
    ) -> dict[str, Any]:
        """PSNR and SSIM of all validation pictures, by torchmetrics; no prompt is drawn."""
        from tinyflux_pl.core import precision
        from tinyflux_pl.training.reconstruction_quality import quality

        network.eval()
        device = next(network.parameters()).device
        with precision.autocast(parts.precision, device), average.applied(network):
            psnr, ssim = quality(network, validation, device)
        return {"psnr_held_out": psnr, "ssim_held_out": ssim, "accuracies": {}, "novelty": {}}
