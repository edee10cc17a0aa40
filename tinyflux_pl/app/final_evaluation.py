"""What results.json holds: the last picture, validation, and prompt accuracy by split."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from tinyflux_pl.app import prompts as drawn_prompts
from tinyflux_pl.app.caches.sources import skipped
from tinyflux_pl.app.training_run import Fitting


def results_of(fitting: Fitting, started: float) -> dict[str, Any]:
    """Measure a run that has taken its last step; for one rank."""
    from tinyflux_pl.training.throughput import peak_memory_bytes

    config, denoiser = fitting.config, fitting.denoiser
    denoiser.to(fitting.parts.device)  # Lightning has taken it off the device
    fitting.module.trainer = fitting.trainer
    for periodic in (fitting.preview, fitting.validation):
        if periodic.performed != config["steps"]:  # nothing was left to train
            periodic.perform(fitting.trainer, fitting.module)
    accuracies, novelty = _accuracies(fitting)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "novelty": novelty,
        "steps": config["steps"],
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        "images_per_second": round(fitting.throughput.images_per_second, 1),
        "validation_loss": fitting.validation.errors["validation/loss"],
        "prompt_accuracy": _first(accuracies, "train"),
        "prompt_accuracy_held_out": _first(accuracies, "held_out"),
        "accuracies": accuracies,
        "peak_memory_bytes": peak_memory_bytes(),
        "checkpoint": str(fitting.last_checkpoint),
        "samples": str(fitting.preview.picture),
        "prompts": fitting.preview.prompts,
        "ask": fitting.parts.text.condition_argument,
        "beside": _beside(fitting),
        "model": config["model"],
        "experts": sorted(fitting.parts.experts),
        "skipped": skipped(fitting.sources),
        "data": config["data"]["name"],
        "seed": config["seed"],
    }


def _accuracies(fitting: Fitting) -> tuple[dict[str, Any], dict[str, Any]]:
    """By source and split: accuracy by claim; and, where the data can tell, the distance to training pictures."""
    from tinyflux_pl.core import precision as formats
    from tinyflux_pl.training.evaluation import prompt_accuracy

    denoiser, seed = fitting.denoiser.eval(), fitting.config["seed"]
    device = next(denoiser.parameters()).device
    accuracies: dict[str, Any] = {}
    novelty: dict[str, Any] = {}
    for source in fitting.sources:
        records = source.train.records
        cell = fitting.parts.codec.latent_spec.downsample
        _, rows, columns = drawn_prompts.latent_shape(source)
        sampler = replace(fitting.sampler, image_size=(rows * cell, columns * cell))
        for split, prompts in drawn_prompts.for_evaluation(fitting.config, records).items():
            name = f"{source.name}/{split}"
            with formats.autocast(fitting.parts.precision, device), fitting.average.applied(denoiser):
                accuracies[name], images = prompt_accuracy(
                    denoiser, sampler, records.verifier(), prompts, seed=seed, title=f"draw {name}"
                )
            if (distances := records.novelty(images)) is not None:
                novelty[name] = distances
    return accuracies, novelty


def _beside(fitting: Fitting) -> list[str]:
    """How generate.py is shown the pictures of the first preview, where the data has pictures beside the words."""
    records = fitting.sources[0].validation.records
    return records.beside("".join(fitting.preview.prompts[:1]))


def _first(accuracies: dict[str, dict[str, float]], split: str) -> float | None:
    return next((found["all"] for name, found in accuracies.items() if name.endswith(f"/{split}")), None)
