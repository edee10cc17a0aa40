"""How a run divides its batch among ranks and micro-batches."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from tinyflux_pl.core.errors import ConfigError


@dataclass
class Sizes:
    """How a run divides its batch: samples of a micro-batch of all ranks and of one, and the ranks."""

    micro_batch: int
    on_rank: int
    accumulation: int
    ranks: int


def sizes(hardware: dict[str, Any]) -> Sizes:
    """How the batch is divided; ConfigError if it cannot be."""
    micro_batch, odd = divmod(hardware["batch_size"], hardware["accumulation"])
    ranks = _ranks(hardware)
    if odd or not micro_batch or micro_batch % ranks:
        among = f" among {ranks} ranks" if ranks > 1 else ""
        raise ConfigError(
            f"{hardware['accumulation']} micro-batches do not make a batch of {hardware['batch_size']}{among}",
            where="hardware.accumulation",
            cure="choose a batch_size that accumulation divides" + (f", and then {ranks}" if ranks > 1 else ""),
        )
    return Sizes(micro_batch, micro_batch // ranks, hardware["accumulation"], ranks)


def _ranks(hardware: dict[str, Any]) -> int:
    """Processes that will train: what a launcher has started, else what Lightning will start."""
    started = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS")
    if started and ("LOCAL_RANK" in os.environ or "SLURM_STEP_ID" in os.environ):
        return int(started)
    devices = hardware["devices"]
    if isinstance(devices, list):
        return len(devices)
    if hardware["accelerator"] == "cpu":
        return max(1, int(devices)) if str(devices).isdigit() else 1
    return int(devices) if str(devices).isdigit() else max(1, torch.cuda.device_count())
