"""The run's own parts put together once more, small and to be thrown away, for a rehearsal."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

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

PREVIEW_STEPS = 2  # a solver that looks back holds from the second step on what it holds in every later one


def optimizer_of(parts: Parts, module: torch.nn.Module) -> torch.optim.Optimizer:
    """The run's optimizer for the module, which may be on the meta device; ConfigError for what it does not take."""
    from tinyflux_pl.training.optimizers import made_for

    try:
        return made_for(module, build(parts.config["optimizer"]))
    except ValueError as error:  # torch's, of a rate or a beta
        cure = "see what it was given: --cfg job --package optimizer"
        raise ConfigError(str(error), where="optimizer", cure=cure) from error


def rehearse(parts: Parts, sizes: Sizes, start: int, sources: list[Source], longest: int) -> Any:
    """Rehearse the run from step `start`, captions of up to `longest` tokens; the training.rehearsal.Rehearsal.

    The save goes where the run's will go, and is removed. Raises MemoryPlanError, NotWritable, DiskFull,
    CorruptCheckpoint.
    """
    from tinyflux_pl.objectives.validation import FixedGrid
    from tinyflux_pl.training import dry_run_fit as rehearsed_fit
    from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
    from tinyflux_pl.training.dry_run import Stages
    from tinyflux_pl.training.preview import Preview

    config, times = parts.config, parts.config["callbacks"]["validation"]["times"]
    folder = Path(config["run_dir"]) / "checkpoints"
    place = files.beside(folder / "preflight")
    learner = Learner.of(parts, place, start, compiled=False)
    sampler = parts.sampler(parts.image_size)
    told = drawn_prompts.pictures_of_previews(config, sources, datasets(sources, False)[1])
    sampler = replace(sampler, settings=replace(sampler.settings, steps=PREVIEW_STEPS), told=told)
    prompts = drawn_prompts.for_previews(config, sources)
    description = parts.description(learner.denoiser, parts.image_size)
    stages = Stages(
        batch=batches(sources, longest, config["seed"]),
        micro_batch=sizes.on_rank,
        validation_batch=sizes.micro_batch,
        grid=FixedGrid(times, config["seed"]),
        preview=Preview(place, sampler, prompts, learner.average, None, 0, config["seed"]),
        checkpoints=CheckpointSchedule(place, description, learner.average, 1, 0, 0, 1, background=False),
        ranks=sizes.ranks,
        where="hardware",
        cure=lambda stage, fits: cure(parts, sizes, stage, fits),
    )
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        place.mkdir(parents=True)
        callbacks = [learner.average, learner.guard]
        return rehearsed_fit.rehearse(learner.module, stages, callbacks, config["hardware"], str(place))
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        where = str(error.filename or place)
        choice = "change its permissions, choose another run=NAME, or write elsewhere with paths.root=/another/disk"
        raise NotWritable(f"no checkpoint can be written: {error.strerror}", where=where, cure=choice) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
        for path in made:
            with suppress(OSError):  # not empty, or never made
                path.rmdir()


def cure(parts: Parts, sizes: Sizes, stage: str, fits: int) -> str:
    """What to change for a stage that does not fit, given the largest micro-batch of one rank that does (0: none)."""
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
    """So many samples in the run's own order, of the largest pictures where sources differ.

    Padded, their text is as long as the longest caption of all.
    """
    from tinyflux_pl.cache.same_shape_order import sample_order

    train, _ = datasets(sources, False)
    weights = [source.weight for source in sources] if len(sources) > 1 else None
    largest = max((shapes[0] for shapes in train.shapes), key=math.prod)

    def batch(size: int, padded: bool) -> Batch:
        order = sample_order(train.lengths, size, seed, weights, train.shapes)
        rows = next(rows for rows in map(order.batch, count()) if train.shape_of(rows[0]) == largest)
        found = train.__getitems__(rows)
        if not padded:
            return found
        text = found.text.padded(max(longest, found.text.tokens.shape[1]))
        mask = text.mask.clone()
        mask[0] = True  # else what pads could be cut off again
        return replace(found, text=TextEmbeddings(text.tokens, mask, text.pooled))

    return batch
