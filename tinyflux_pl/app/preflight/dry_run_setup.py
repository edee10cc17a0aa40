"""Builds a throw-away copy of the run from its own parts, for a dry run (training/dry_run.py)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tinyflux_pl.app import prompts as drawn_prompts
from tinyflux_pl.app.batch_sizes import Sizes
from tinyflux_pl.app.caches.sources import Source, datasets
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.trainable import Learner
from tinyflux_pl.config.build import build
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError, NotWritable
from tinyflux_pl.core.types import Batch, TextEmbeddings

if TYPE_CHECKING:
    from tinyflux_pl.training.dry_run import DryRun

# From its second step on, a multi-step solver holds the memory of every later step.
PREVIEW_STEPS = 2


def optimizer_of(parts: Parts, module: torch.nn.Module) -> torch.optim.Optimizer:
    """The run's optimizer for a module, which may be on the meta device; ConfigError for bad options."""
    from tinyflux_pl.training.optimizers import build_optimizer

    try:
        return build_optimizer(module, build(parts.config["optimizer"]))
    except ValueError as error:  # torch's, of a rate or a beta
        cure = "see what it was given: --cfg job --package optimizer"
        raise ConfigError(str(error), where="optimizer", cure=cure) from error


def dry_run(parts: Parts, sizes: Sizes, start: int, sources: list[Source], longest: int) -> DryRun:
    """Dry-run the run from step `start`, with captions of up to `longest` tokens.

    The save goes to the disk of the run's checkpoints and is removed. Raises MemoryPlanError,
    NotWritable, DiskFull, CorruptCheckpoint.
    """
    from tinyflux_pl.objectives.validation import FixedGrid
    from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
    from tinyflux_pl.training.dry_run import DryRunStages
    from tinyflux_pl.training.dry_run_fit import fit_dry_run
    from tinyflux_pl.training.preview import Preview

    config, times = parts.config, parts.config["callbacks"]["validation"]["times"]
    folder = Path(config["run_dir"]) / "checkpoints"
    scratch = files.beside(folder / "preflight")
    learner = Learner.of(parts, scratch, start, compiled=False)
    sampler = parts.sampler(parts.image_size)
    told = drawn_prompts.pictures_of_previews(config, sources, datasets(sources, False)[1])
    sampler = replace(sampler, settings=replace(sampler.settings, steps=PREVIEW_STEPS), told=told)
    prompts = drawn_prompts.for_previews(config, sources)
    description = parts.description(learner.denoiser, parts.image_size)
    stages = DryRunStages(
        batch=batches(sources, longest, config["seed"]),
        micro_batch=sizes.on_rank,
        validation_batch=sizes.micro_batch,
        grid=FixedGrid(times, config["seed"]),
        preview=Preview(scratch, sampler, prompts, learner.average, None, 0, config["seed"]),
        checkpoints=CheckpointSchedule(scratch, description, learner.average, 1, 0, 0, 1, background=False),
        ranks=sizes.ranks,
        where="hardware",
        cure=lambda stage, fits: cure(parts, sizes, stage, fits),
    )
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        scratch.mkdir(parents=True)
        callbacks = [learner.average, learner.guard]
        return fit_dry_run(learner.module, stages, callbacks, config["hardware"], str(scratch))
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        where = str(error.filename or scratch)
        choice = "change its permissions, choose another run=NAME, or write elsewhere with paths.root=/another/disk"
        raise NotWritable(f"no checkpoint can be written: {error.strerror}", where=where, cure=choice) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for path in new_folders:
            with suppress(OSError):  # not empty, or never created
                path.rmdir()


def cure(parts: Parts, sizes: Sizes, stage: str, fits: int) -> str:
    """The remedy for a stage that does not fit; `fits` is the largest micro-batch of a rank that does, or 0."""
    hardware, previews = parts.config["hardware"], parts.config["callbacks"]["preview"]["count"]
    choices = []
    if fits and fits < sizes.on_rank:
        choices.append(f"hardware.accumulation={sizes.accumulation * sizes.on_rank // fits}")
    if stage == "step" and not hardware["gradient_checkpointing"]:
        choices.append("hardware.gradient_checkpointing=true")
    if stage in ("step", "validation") and hardware["batch_size"] > 1:
        choices.append(f"hardware.batch_size={fits * sizes.ranks or hardware['batch_size'] // 2}")
    if stage == "preview" and previews > 1:
        choices.append(f"callbacks.preview.count={previews // 2}")
    return ", or ".join([*choices, "a smaller model=", "a machine with more memory"])


def batches(sources: list[Source], longest: int, seed: int) -> Callable[[int, bool], Batch]:
    """A function (size, padded) -> batch in the run's own order, of the largest images where sources differ.

    Padded text is as long as the longest caption of the data.
    """
    from tinyflux_pl.cache.same_shape_order import sample_order

    train, _ = datasets(sources, False)
    weights = [source.weight for source in sources] if len(sources) > 1 else None
    largest = max((shapes[0] for shapes in train.shapes), key=math.prod)

    def batch(size: int, padded: bool) -> Batch:
        order = sample_order(train.lengths, size, seed, weights, train.shapes)
        rows = next(rows for rows in map(order.batch, count()) if train.shape_of(rows[0]) == largest)
        loaded = train.__getitems__(rows)
        if not padded:
            return loaded
        text = loaded.text.padded(max(longest, loaded.text.tokens.shape[1]))
        mask = text.mask.clone()
        mask[0] = True  # padding that no sample uses would be trimmed again
        return replace(loaded, text=TextEmbeddings(text.tokens, mask, text.pooled))

    return batch
