"""The pieces of a training run: datamodule, callbacks in their order, loggers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.caches.sources import Source, datasets
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.fitting import prompts, trained_references
from tinyflux_pl.app.fitting.chosen_callbacks import chosen_callbacks
from tinyflux_pl.app.fitting.module_kinds import kind_of
from tinyflux_pl.app.fitting.starting_point import require_same_base
from tinyflux_pl.app.fitting.trainable import Trainable
from tinyflux_pl.app.memory.batch_sizes import sizes
from tinyflux_pl.checkpoints import reference_count
from tinyflux_pl.checkpoints.directory import Checkpoint
from tinyflux_pl.config import redact
from tinyflux_pl.config.build import build
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core import fingerprint

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.loggers import Logger

    from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
    from tinyflux_pl.training.datamodule import CachedLatents
    from tinyflux_pl.training.ema import AveragedWeights
    from tinyflux_pl.training.last_values import LastValues
    from tinyflux_pl.training.preview import Preview
    from tinyflux_pl.training.resume import Resume
    from tinyflux_pl.training.throughput import Throughput
    from tinyflux_pl.training.validation import Validation


@dataclass
class RunCallbacks:
    """The callbacks that the final evaluation reads, and all of them in the trainer's order."""

    throughput: Throughput
    checkpoints: CheckpointSchedule
    preview: Preview
    validation: Validation
    sampler: Any  # of the previews, as the kind of module draws them
    resume: Resume | None
    in_order: list[Callback]


@dataclass
class TrainingRun:
    """Everything that `trainer.fit` needs, and what is read from it afterwards."""

    parts: Parts[Train]
    sources: list[Source]
    checkpoint: Checkpoint | None  # the run continues from it
    datamodule: CachedLatents
    trainable: Trainable
    callbacks: RunCallbacks
    trainer: Trainer
    logged: LastValues

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return Path(self.parts.config.run_dir)

    def fit(self) -> None:
        """Take the remaining steps, if any, on every rank."""
        if (self.checkpoint.step if self.checkpoint else 0) < self.parts.config.steps:
            self.trainer.fit(self.trainable.module, self.datamodule)

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint of the last step."""
        path = self.callbacks.checkpoints.last or (self.checkpoint and self.checkpoint.path)
        assert path is not None, "a run that took no step continued from a checkpoint"
        return path


def build_datamodule(config: Train, sources: list[Source], start: int) -> CachedLatents:
    """The micro-batches from step `start` on, and the validation set."""
    from tinyflux_pl.training.datamodule import CachedLatents

    train, validation = datasets(sources, config.data.in_memory, config.seed)
    return CachedLatents(
        train,
        validation,
        sizes(config.hardware).micro_batch,
        stop_step=config.steps,
        start_step=start,
        accumulation=int(config.hardware.accumulation),
        seed=config.seed,
        workers=config.hardware.workers,
        weights=[source.weight for source in sources] if len(sources) > 1 else None,
        rates=[source.train.records.draw_rates() for source in sources],
        validation_samples=config.callbacks.validation.samples,
    )


def build_callbacks(
    parts: Parts[Train],
    sources: list[Source],
    trainable: Trainable,
    datamodule: CachedLatents,
    checkpoint: Checkpoint | None,
) -> RunCallbacks:
    """The callbacks of a run, in the order in which they must see a step."""
    from tinyflux_pl.training import measures
    from tinyflux_pl.training.logged_metrics import LoggedMetrics
    from tinyflux_pl.training.preemption import Preemption
    from tinyflux_pl.training.progress_bar import RunBar
    from tinyflux_pl.training.resume import Resume
    from tinyflux_pl.training.self_logged import SelfLogged
    from tinyflux_pl.training.throughput import Throughput
    from tinyflux_pl.training.validation import Validation

    config, average = parts.config, trainable.average
    parts.method.require_captions(prompts.all_captions(sources))
    resume = None
    if checkpoint is not None:
        require_same_base(checkpoint, trainable.description)
        saved = parts.method.saved(trainable.denoiser)
        resume = Resume(checkpoint, trainable.denoiser, average, saved)
    throughput = Throughput()
    log_every = config.callbacks.log_every_steps
    kind = kind_of(parts)
    at_log_points = [
        *kind.measures(parts, datamodule),
        *(measures.ema_distance(average), measures.waiting(datamodule.data_wait)),
        measures.peak_memory,
    ]
    metrics = LoggedMetrics(log_every, throughput, at_log_points)
    sampler = kind.sampler(parts, sources)
    references = trained_references.count(config, sources, trainable.denoiser, checkpoint)
    description = {**trainable.description, reference_count.KEY: references}
    checkpoints = _checkpoint_schedule(
        parts, sources, description, trainable.average, datamodule.steps_per_epoch
    )
    preview = kind.preview(parts, sources, sampler, average, Path(config.run_dir) / "samples")
    keys = config.callbacks.validation
    validation = Validation(kind.grid(parts), datamodule, average, keys.every_steps, keys.seen)
    gate = _teacher_gate(parts, sources, trainable, validation)
    # First those that complete a step, then those that may stop there, then those that use it.
    resuming = [] if resume is None else [resume]
    completing = [average, *resuming, throughput, metrics, trainable.guard]
    stopping = [Preemption(checkpoints), checkpoints]
    using = [
        preview,
        validation,
        *gate,
        *chosen_callbacks(config.callbacks),
        RunBar(config.steps, metrics),
    ]
    in_order = [*completing, *stopping, *using, SelfLogged(log_every)]
    return RunCallbacks(throughput, checkpoints, preview, validation, sampler, resume, in_order)


def _teacher_gate(
    parts: Parts[Train], sources: list[Source], trainable: Trainable, validation: Validation
) -> list[Callback]:
    """The gate of a run with velocity targets, whose teachers are measured here."""
    if not parts.targets:
        return []
    from tinyflux_pl.app.experts import teacher_errors
    from tinyflux_pl.training.teacher_gate import TeacherGate

    denoiser, targets = trainable.denoiser, trainable.module.objective.velocity_targets
    assert targets is not None, "the objective was built from the same parts"
    teacher_errors.measure(targets, sources, denoiser.path, denoiser.prediction)
    return [TeacherGate(targets, validation)]


def build_loggers(config: Train, start: int) -> list[Logger]:
    """Loggers in the run's folder.

    A resumed run appends to the CSV file and continues its W&B run; others write beside what they
    wrote before.
    """
    from tinyflux_pl.training.metrics_file import MetricsFile
    from tinyflux_pl.training.run_logger import RunLogger

    loggers: list[Logger] = []
    for name, node in config.logger.items():
        if start and "version" in node:
            node = {**node, "version": f"{node['version']}_from_{start:07d}"}
        logger = build({**node, "save_dir": config.run_dir}, f"logger.{name}")
        if isinstance(logger, MetricsFile):
            logger.continue_from(start)
        elif not isinstance(logger, RunLogger):
            logger.log_hyperparams(redact.redact_data(config.plain))
        loggers.append(logger)
    return loggers


def cache_fingerprints(sources: list[Source]) -> dict[str, str]:
    """Source -> hash of its training samples and of their encodings."""
    hashes = {}
    for source in sources:
        store = source.train.store
        groups = {name: store.groups()[name] for name in source.train.groups}
        content = {"records": store.records, "total": store.total, **groups}
        hashes[source.name] = fingerprint.hash_json(content)[:12]
    return hashes


def _checkpoint_schedule(
    parts: Parts[Train],
    sources: list[Source],
    description: dict[str, Any],
    average: AveragedWeights,
    steps_per_epoch: int,
) -> CheckpointSchedule:
    from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule

    config = parts.config
    description["caches"] = cache_fingerprints(sources)
    if parts.text.condition_argument is None:  # else captions only name pairs
        description["captions"] = prompts.training_captions(sources).plain()
    folder = Path(config.run_dir) / "checkpoints"
    options = config.callbacks.checkpoint.plain
    return CheckpointSchedule(folder, description, average, steps_per_epoch, **options)
