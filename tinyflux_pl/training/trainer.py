"""The Lightning Trainer of a run: one stream of steps, validation in between."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import Logger

from tinyflux_pl.core import precision as formats
from tinyflux_pl.training.progress_bar import RunBar


def make_trainer(
    hardware: dict[str, Any],
    *,
    run_dir: str,
    steps: int,
    validate_every: int,
    log_every: int,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
) -> Trainer:
    """A Trainer that takes `steps` optimizer steps (of this process, after any resumption).

    Checkpoints, sampler and sanity checks are the project's own: Lightning's are off.
    """
    # No notes on hardware and on other products; warnings come once, through the root logger.
    notes = logging.getLogger("lightning.pytorch")
    notes.setLevel(logging.WARNING)
    notes.handlers.clear()
    # Ours by design: samples come from a memory map, where workers only add copies.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
    accumulation = int(hardware["accumulation"])
    monitors: list[Callback] = [LearningRateMonitor("step")] if loggers else []
    return Trainer(
        accelerator=hardware["accelerator"],
        devices=hardware["devices"],
        strategy=hardware["strategy"],
        precision=formats.choose(hardware["precision"], hardware["accelerator"]),
        accumulate_grad_batches=accumulation,
        max_steps=steps,
        val_check_interval=max(1, min(validate_every, steps)) * accumulation,
        check_val_every_n_epoch=None,
        log_every_n_steps=log_every,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=run_dir,
        callbacks=[*callbacks, *monitors, RunBar()],
        logger=list(loggers),
    )
