"""The Lightning Trainer of a run: one pass over one stream of micro-batches."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from tinyflux_pl.core import precision as formats


def make_trainer(
    hardware: dict[str, Any],
    *,
    run_dir: str,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
) -> Trainer:
    """A Trainer for one pass over the datamodule's batches, which end with the run's last step.

    Checkpoints, validation, logging, sampler and progress bar are the project's own, by its own
    step count: Lightning's starts again in a resumed run, and doubles with two optimizers.
    """
    # Drop notes on hardware and on other products; warnings come once, through the root logger.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger(name).handlers.clear()
    # Few workers by design: samples come from a memory map, where workers only add copies.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
    return Trainer(
        accelerator=hardware["accelerator"],
        devices=hardware["devices"],
        strategy=hardware["strategy"],
        precision=formats.choose(hardware["precision"], hardware["accelerator"]),
        accumulate_grad_batches=int(hardware["accumulation"]),
        max_epochs=1,
        limit_val_batches=0,
        log_every_n_steps=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=run_dir,
        callbacks=list(callbacks),
        logger=list(loggers),
    )
