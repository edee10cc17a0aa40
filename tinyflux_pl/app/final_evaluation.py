"""The final evaluation of a run: results.json's values, and the export as a teacher."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyflux_pl.app import prompts
from tinyflux_pl.app.caches.sources import skipped
from tinyflux_pl.app.training_run import TrainingRun


def evaluate(run: TrainingRun, started: float) -> dict[str, Any]:
    """Measure a run that has taken its last step; for one rank. `started`: perf_counter()."""
    from tinyflux_pl.training.throughput import peak_memory_bytes

    config, callbacks = run.parts.config, run.callbacks
    denoiser, module = run.trainable.denoiser, run.trainable.module
    denoiser.to(run.parts.device)  # Lightning moved it to the CPU
    module.trainer = run.trainer
    for periodic in (callbacks.preview, callbacks.validation):
        if periodic.performed != config.steps:  # no step was left to take
            periodic.perform(run.trainer, module)
    accuracies, novelty = _accuracies(run)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "novelty": novelty,
        "steps": config.steps,
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        "images_per_second": round(callbacks.throughput.images_per_second, 1),
        "validation_loss": callbacks.validation.errors["validation/loss"],
        "prompt_accuracy": _first(accuracies, "train"),
        "prompt_accuracy_held_out": _first(accuracies, "held_out"),
        "accuracies": accuracies,
        "peak_memory_bytes": peak_memory_bytes(),
        "checkpoint": str(run.last_checkpoint),
        "samples": str(callbacks.preview.picture),
        "prompts": callbacks.preview.prompts,
        "ask": run.parts.text.condition_argument,
        "beside": _picture_words(run),
        "model": config.model,
        "experts": sorted(run.parts.experts),
        "skipped": skipped(run.sources),
        "data": config.data.name,
        "seed": config.seed,
    }


def export_teacher(config: Any, results: dict[str, Any]) -> Path:
    """Export the run's network as an embedded teacher, with its recipe; returns its folder."""
    from tinyflux_pl.checkpoints import directory
    from tinyflux_pl.experts import teacher_export

    keys = ("seed", "steps", "optimizer", "schedule", "objective", "data", "hardware")
    recipe = {key: config.plain[key] for key in keys}
    recipe |= {key: results[key] for key in ("accuracies", "validation_loss")}
    checkpoint = directory.read(results["checkpoint"])
    return teacher_export.export_teacher(checkpoint, config.export_teacher, recipe)


def _accuracies(run: TrainingRun) -> tuple[dict[str, Any], dict[str, Any]]:
    """Accuracy by claim, and distances to training pictures, each by source/split."""
    from tinyflux_pl.core import precision
    from tinyflux_pl.training.evaluation import prompt_accuracy

    denoiser, config = run.trainable.denoiser.eval(), run.parts.config
    device = next(denoiser.parameters()).device
    cell = run.parts.codec.latent_spec.downsample
    accuracies: dict[str, Any] = {}
    novelty: dict[str, Any] = {}
    for source in run.sources:
        records = source.train.records
        _, rows, columns = prompts.latent_shape(source)
        sampler = replace(run.callbacks.sampler, image_size=(rows * cell, columns * cell))
        for split, drawn in prompts.for_evaluation(config, records).items():
            name = f"{source.name}/{split}"
            with (
                precision.autocast(run.parts.precision, device),
                run.trainable.average.applied(denoiser),
            ):
                accuracies[name], images = prompt_accuracy(
                    denoiser,
                    sampler,
                    records.verifier(),
                    drawn,
                    seed=config.seed,
                    title=f"draw {name}",
                )
            if (distances := records.novelty(images)) is not None:
                novelty[name] = distances
    return accuracies, novelty


def _picture_words(run: TrainingRun) -> list[str]:
    """Words of a generate.py command that give the first preview's pictures, for data that has
    some.
    """
    records = run.sources[0].validation.records
    return records.picture_overrides("".join(run.callbacks.preview.prompts[:1]))


def _first(accuracies: dict[str, dict[str, float]], split: str) -> float | None:
    """The accuracy of the first source that has the split."""
    matching = (a["all"] for name, a in accuracies.items() if name.endswith(f"/{split}"))
    return next(matching, None)
