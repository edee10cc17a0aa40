"""Setup of the dry run: a small throw-away copy of the run's own components."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from tinyflux_pl.app.caches.sources import Source, datasets
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.fitting import prompts
from tinyflux_pl.app.fitting.module_kinds import kind_of
from tinyflux_pl.app.fitting.trainable import Trainable, build_trainable
from tinyflux_pl.app.memory.batch_sizes import Sizes
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import NotWritable
from tinyflux_pl.core.types import Batch, TextEmbeddings

if TYPE_CHECKING:
    from tinyflux_pl.training.dry_run import DryRun, DryRunStages


def dry_run(
    parts: Parts[Train], sizes: Sizes, start: int, sources: list[Source], longest_caption: int
) -> DryRun:
    """Take a few steps from `start`, with captions of up to `longest_caption` tokens.

    The checkpoint that it saves lies beside the run's own, and is removed. Raises MemoryPlanError,
    NotWritable, DiskFull, CorruptCheckpoint.
    """
    from tinyflux_pl.training.dry_run_fit import fit_dry_run

    folder = Path(parts.config.run_dir) / "checkpoints"
    scratch = files.staging_path(folder / "preflight")
    start = kind_of(parts).dry_run_start(parts, start)
    trainable = build_trainable(parts, scratch, start, compiled=False)
    stages = _stages(parts, sizes, sources, longest_caption, trainable, scratch)
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        scratch.mkdir(parents=True)
        trainable.guard.record.label = "in the dry run, before the first step: "
        callbacks = [trainable.average, trainable.guard]
        hardware = parts.config.hardware.plain
        return fit_dry_run(trainable.module, stages, callbacks, hardware, str(scratch))
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise NotWritable(
            f"no checkpoint can be written: {error.strerror}",
            where=str(error.filename or scratch),
            cure="change its permissions, choose another run=NAME, or write elsewhere with "
            "paths.root=/another/disk",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for path in new_folders:
            with suppress(OSError):  # not empty, or never made
                path.rmdir()


def _stages(
    parts: Parts[Train],
    sizes: Sizes,
    sources: list[Source],
    longest_caption: int,
    trainable: Trainable,
    scratch: Path,
) -> DryRunStages:
    from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
    from tinyflux_pl.training.dry_run import DryRunStages
    from tinyflux_pl.training.preview import Preview

    config, average = parts.config, trainable.average
    kind = kind_of(parts)
    sampler = kind.sampler(parts, sources, quick=True)
    drawn = prompts.for_previews(config, sources)
    return DryRunStages(
        batch=batches(sources, longest_caption, config.seed),
        micro_batch=sizes.on_rank,
        validation_batch=sizes.micro_batch,
        grid=kind.grid(parts),
        preview=Preview(scratch, sampler, drawn, average, None, 0, config.seed),
        checkpoints=CheckpointSchedule(
            scratch, trainable.description, average, 1, 0, 0, 1, background=False
        ),
        ranks=sizes.ranks,
        where="hardware",
        cure=lambda stage, fitting: cure(parts, sizes, stage, fitting),
    )


def cure(parts: Parts[Train], sizes: Sizes, stage: str, fitting: int) -> str:
    """The keys to change for a stage that does not fit.

    `fitting` is the largest micro-batch of one rank that does; 0: none.
    """
    hardware, previews = parts.config.hardware, parts.config.callbacks.preview.count
    choices = []
    if fitting and fitting < sizes.on_rank:
        accumulation = sizes.accumulation * sizes.on_rank // fitting
        choices.append(f"hardware.accumulation={accumulation}")
    if stage == "step" and not hardware.gradient_checkpointing:
        choices.append("hardware.gradient_checkpointing=true")
    if stage in ("step", "validation") and hardware.batch_size > 1:
        smaller = fitting * sizes.ranks or hardware.batch_size // 2
        choices.append(f"hardware.batch_size={smaller}")
    if stage == "preview" and previews > 1:
        choices.append(f"callbacks.preview.count={previews // 2}")
    return ", or ".join([*choices, "a smaller model=", "a machine with more memory"])


def batches(sources: list[Source], longest_caption: int, seed: int) -> Callable[[int, bool], Batch]:
    """A function (size, padded) -> batch in the run's order, of the largest pictures.

    Padded text is as long as the longest caption.
    """
    from tinyflux_pl.cache.same_shape_order import sample_order

    train, _ = datasets(sources, False)
    weights = [source.weight for source in sources] if len(sources) > 1 else None
    runs = [run for source in train.runs for run in source]
    largest = max((shapes[0] for _, shapes in runs), key=math.prod)

    def batch(size: int, padded: bool) -> Batch:
        order = sample_order(train.runs, size, seed, weights)
        candidates = map(order.batch, count())
        rows = next(rows for rows in candidates if train.shape_of(rows[0]) == largest)
        samples = train.__getitems__(rows)
        if not padded:
            return samples
        length = max(longest_caption, samples.text.tokens.shape[1])
        text = samples.text.padded(length)
        mask = text.mask.clone()
        mask[0] = True  # otherwise the padding could be cut off again
        return replace(samples, text=TextEmbeddings(text.tokens, mask, text.pooled))

    return batch
