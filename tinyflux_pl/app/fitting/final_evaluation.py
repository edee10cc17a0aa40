"""The final evaluation of a run: results.json's values, and the export as a teacher."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.caches.sources import skipped
from tinyflux_pl.app.experts import pathway
from tinyflux_pl.app.fitting.module_kinds import kind_of
from tinyflux_pl.app.fitting.training_run import TrainingRun
from tinyflux_pl.app.reporting import run_record

# what of the configuration an exported teacher records
RECIPE_KEYS = (
    *("seed", "steps", "init", "data", "path", "timesteps", "objective", "optimizer", "schedule"),
    *("sampler", "guidance", "hardware"),
)

if TYPE_CHECKING:
    from tinyflux_pl.core.record import Record


def evaluate(run: TrainingRun, started: float) -> dict[str, Any]:
    """Measure a run that has taken its last step, and log the results; for one rank.

    `started`: perf_counter().
    """
    from tinyflux_pl.training.throughput import peak_memory_bytes

    config, callbacks = run.parts.config, run.callbacks
    denoiser, module = run.trainable.denoiser, run.trainable.module
    denoiser.to(run.parts.device)  # Lightning moved it to the CPU
    module.trainer = run.trainer
    for periodic in (callbacks.preview, callbacks.validation):
        if periodic.performed != module.step:  # no step was left to take
            periodic.perform(run.trainer, module)
    measured = kind_of(run.parts).measure(
        run.parts,
        run.sources,
        denoiser,
        run.trainable.average,
        callbacks.sampler,
        run.datamodule.validation_batches(),
    )
    with run.trainable.average.applied(denoiser):
        exported = run.parts.method.export(denoiser, run.run_dir)
    results = {
        "seconds": round(time.perf_counter() - started, 1),
        "steps": module.step,
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        "trained_parameters": sum(p.numel() for p in denoiser.parameters() if p.requires_grad),
        "images_per_second": round(callbacks.throughput.images_per_second, 1),
        "validation_loss": callbacks.validation.errors["validation/loss"],
        **measured,
        "peak_memory_bytes": peak_memory_bytes(),
        "checkpoint": str(run.last_checkpoint),
        "exports": [str(file) for file in exported],
        "samples": str(callbacks.preview.picture),
        "prompts": callbacks.preview.prompts,
        "ask": run.parts.text.condition_argument,
        "beside": _picture_words(run),
        "model": config.model,
        "experts": pathway.teachers(config),
        "pathway": pathway.name(config),
        "skipped": skipped(run.sources),
        "data": config.data.name,
        "seed": config.seed,
    }
    run_record.log_results(run, results)
    return results


def export_teacher(config: Any, results: dict[str, Any]) -> Path:
    """Export the run's network as an embedded teacher, with its recipe; returns its folder."""
    from tinyflux_pl.checkpoints import directory
    from tinyflux_pl.experts import teacher_export

    recipe = {key: config.plain[key] for key in RECIPE_KEYS}
    recipe |= {key: results[key] for key in ("accuracies", "validation_loss")}
    checkpoint = directory.read(results["checkpoint"])
    return teacher_export.export_teacher(checkpoint, config.export_teacher, recipe)


def _picture_words(run: TrainingRun) -> list[str]:
    """Arguments of generate.py for the images of the first preview, if it has any.

    The map of a control branch is written beside the samples: it need not be a file of the data.
    """
    records = run.sources[0].validation.records
    if run.parts.config.data.hint is not None:
        return [f"control={_written_map(records[0], run.run_dir)}"]
    return records.picture_overrides("".join(run.callbacks.preview.prompts[:1]))


def _written_map(record: Record, run_dir: Path) -> Path:
    """The picture of a record's map, at the size that the run draws."""
    from PIL import Image

    from tinyflux_pl.sampling.picture import save_png

    file = run_dir / "samples" / "control.png"
    file.parent.mkdir(exist_ok=True)
    save_png(Image.fromarray(record.hint), file, {"source": record.source})
    return file
