"""Training a denoiser: FlowModule, pictures of prompts, errors on a grid of times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.caches.sources import Source, datasets
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.fitting import prompts
from tinyflux_pl.app.memory.step_flops import utilisation
from tinyflux_pl.app.run_sampling import null_text
from tinyflux_pl.config.build import build

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from tinyflux_pl.checkpoints.directory import Checkpoint
    from tinyflux_pl.core.types import Batch
    from tinyflux_pl.sampling.images import ImageSampler
    from tinyflux_pl.training.datamodule import CachedLatents
    from tinyflux_pl.training.ema import AveragedWeights
    from tinyflux_pl.training.measures import Measure
    from tinyflux_pl.training.nonfinite_guard import NonFiniteGuard
    from tinyflux_pl.training.preview import Preview
    from tinyflux_pl.training.replay_bundle import ReplayBundle

QUICK_STEPS = 2  # a multistep solver needs no more memory after its second step


class DenoiserKind:
    """Implements app.fitting.module_kinds.ModuleKind for denoisers."""

    manual_steps = False
    not_averaged = ()

    def network(self, checkpoint: Checkpoint) -> tuple[Any, frozenset[str]]:
        """The described denoiser."""
        from tinyflux_pl.inference.described_parts import network

        return network(checkpoint)

    def guard(self, bundle: ReplayBundle, parts: Parts) -> NonFiniteGuard:
        """A guard that checks each step once."""
        from tinyflux_pl.training.nonfinite_guard import NonFiniteGuard

        keys = parts.config.callbacks
        return NonFiniteGuard(bundle, keys.log_every_steps, **keys.guard.plain)

    def module(
        self, parts: Parts, network: Any, start: int, guard: NonFiniteGuard
    ) -> LightningModule:
        """A FlowModule for the steps from `start` on."""
        from tinyflux_pl.training.flow_module import FlowModule

        config, text = parts.config, parts.method.sampling_text(parts.text)
        objective = parts.student_objective(null_text(config, text, parts.method.reads))
        schedule = build(config.schedule, "schedule")
        optimizer = build(config.optimizer, "optimizer")
        clip = config.callbacks.clip
        return FlowModule(network, objective, optimizer, schedule, start, clip, guard, parts.method)

    def dry_run_start(self, parts: Parts, start: int) -> int:
        """`start`: every step takes the same memory."""
        return start

    def sampler(
        self, parts: Parts, sources: Sequence[Source], *, quick: bool = False
    ) -> ImageSampler:
        """The run's sampler, conditioned on the pictures of the data."""
        from tinyflux_pl.sampling.images import text_only

        validation = datasets(list(sources), False)[1]
        conditions = prompts.preview_conditions(parts.config, list(sources), validation)
        size, cell = parts.image_size, parts.codec.latent_spec.downsample
        if conditions is not text_only:  # the pictures of conditions have the frame of their own
            _, rows, columns = prompts.latent_shape(sources[0])
            size = (rows * cell, columns * cell)
        sampler = replace(parts.sampler(size), condition_fn=conditions)
        if not quick:
            return sampler
        return replace(sampler, settings=replace(sampler.settings, steps=QUICK_STEPS))

    def preview(
        self,
        parts: Parts,
        sources: Sequence[Source],
        sampler: ImageSampler,
        average: AveragedWeights,
        folder: Path,
    ) -> Preview:
        """Pictures of prompts, read back by the data's verifier."""
        from tinyflux_pl.data.tasks.prompt_accuracy import PromptAccuracy
        from tinyflux_pl.data.training_captions import readable
        from tinyflux_pl.training.preview import Preview

        config, sources = parts.config, list(sources)
        records = sources[0].train.records
        # One verifier cannot read the pictures of several sources.
        verifier = records.verifier() if len(sources) == 1 else None
        metric = None if verifier is None else PromptAccuracy(verifier, alone=True)
        drawn = prompts.for_previews(config, sources)
        measured = None if metric is None else readable(records, drawn)
        if measured is not None and len(measured) < len(drawn):
            count = f"{len(drawn) - len(measured)} of {len(drawn)}"
            print(
                f"previews: {count} prompts are not measured: the data's verifier cannot read them"
            )
        return Preview(
            folder,
            sampler,
            drawn,
            average,
            metric,
            config.callbacks.preview.every_steps,
            config.seed,
            records.pictures,
            measured,
            prompts.dataset_pictures(sources, drawn, sampler.image_size),
        )

    def measures(self, parts: Parts, datamodule: CachedLatents) -> list[Measure]:
        """The schedules of experts and velocities, the gates of ports, utilisation of the GPU."""
        from tinyflux_pl.training import measures

        schedules = [measures.expert_schedule, measures.velocity_targets, measures.gates]
        return [*schedules, *utilisation(parts, datamodule)]

    def grid(self, parts: Parts) -> Any:
        """Errors at fixed times."""
        from tinyflux_pl.objectives.validation import FixedGrid

        return FixedGrid(parts.config.callbacks.validation.times, parts.config.seed)

    def measure(
        self,
        parts: Parts,
        sources: Sequence[Source],
        network: Any,
        average: AveragedWeights,
        sampler: Any,
        validation: Iterable[Batch],
    ) -> dict[str, Any]:
        """Prompt accuracy by source and split, and distances to training pictures."""
        accuracies, readings, novelty = _accuracies(parts, sources, network, average, sampler)
        return {
            "prompt_accuracy": _first(accuracies, "train"),
            "prompt_accuracy_held_out": _first(accuracies, "held_out"),
            "accuracies": accuracies,
            "readings": readings,
            "novelty": novelty,
        }


def _accuracies(
    parts: Parts, sources: Sequence[Source], network: Any, average: AveragedWeights, sampler: Any
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Accuracy by claim, verifier accuracy and distances to training images, by source/split."""
    from tinyflux_pl.core import precision
    from tinyflux_pl.training.evaluation import prompt_accuracy

    denoiser, config = network.eval(), parts.config
    device = next(denoiser.parameters()).device
    cell = parts.codec.latent_spec.downsample
    accuracies: dict[str, Any] = {}
    readings: dict[str, Any] = {}
    novelty: dict[str, Any] = {}
    for source in sources:
        records = source.train.records
        _, rows, columns = prompts.latent_shape(source)
        sized = replace(sampler, image_size=(rows * cell, columns * cell))
        for split, drawn in prompts.for_evaluation(config, records).items():
            name = f"{source.name}/{split}"
            with (
                precision.autocast(parts.precision, device),
                average.applied(denoiser),
            ):
                accuracies[name], images = prompt_accuracy(
                    denoiser,
                    sized,
                    records.verifier(),
                    drawn,
                    seed=config.seed,
                    title=f"draw {name}",
                )
            if (reading := records.verifier().reading(images)) is not None:
                readings[name] = reading.values()
            if (distances := records.novelty(images)) is not None:
                novelty[name] = distances
    return accuracies, readings, novelty


def _first(accuracies: dict[str, dict[str, float]], split: str) -> float | None:
    """The accuracy of the first source that has the split."""
    matching = (a["all"] for name, a in accuracies.items() if name.endswith(f"/{split}"))
    return next(matching, None)
