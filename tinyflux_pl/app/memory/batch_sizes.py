"""Division of a run's batch among ranks and micro-batches."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from tinyflux_pl.config.hardware_schema import Hardware
from tinyflux_pl.core.errors import ConfigError


@dataclass
class Sizes:
    """Samples of a micro-batch over all ranks, and on one rank; micro-batches a step; ranks."""

    micro_batch: int
    on_rank: int
    accumulation: int
    ranks: int


def sizes(hardware: Hardware) -> Sizes:
    """Divide the batch; ConfigError if accumulation and ranks do not divide it."""
    accumulation, ranks = int(hardware.accumulation), num_ranks(hardware)
    micro_batch, remainder = divmod(hardware.batch_size, accumulation)
    if remainder or not micro_batch or micro_batch % ranks:
        among = f" among {ranks} ranks" if ranks > 1 else ""
        raise ConfigError(
            f"{accumulation} micro-batches do not divide a batch of {hardware.batch_size}{among}",
            where="hardware.accumulation",
            cure="choose a batch_size that accumulation divides"
            + (f", and then {ranks}" if ranks > 1 else ""),
        )
    return Sizes(micro_batch, micro_batch // ranks, accumulation, ranks)


def num_ranks(hardware: Hardware) -> int:
    """Processes that will train: those a launcher started, else those Lightning will start."""
    started = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS")
    if started and ("LOCAL_RANK" in os.environ or "SLURM_STEP_ID" in os.environ):
        return int(started)
    devices = hardware.devices
    if isinstance(devices, list):
        return len(devices)
    if hardware.accelerator == "cpu":
        return max(1, int(devices)) if str(devices).isdigit() else 1
    return int(devices) if str(devices).isdigit() else max(1, torch.cuda.device_count())
