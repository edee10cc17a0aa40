"""How fast, and with how much memory."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Images a second of this process's training alone: without validation, previews and checkpoints."""

    def __init__(self) -> None:
        self.images, self.busy = 0, 0.0
        self._start = 0.0
        self._asked = (0, 0.0)

    def on_train_batch_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.busy += time.perf_counter() - self._start
        self.images += len(batch) * trainer.world_size

    def since_last_asked(self) -> float:
        """Mean rate since the last call."""
        images, busy = self._asked
        self._asked = (self.images, self.busy)
        return (self.images - images) / max(self.busy - busy, 1e-9)

    @property
    def images_per_second(self) -> float:
        """Mean rate so far."""
        return self.images / self.busy if self.busy else 0.0


def peak_memory_bytes() -> int:
    """Peak resident memory of this process, or of the accelerator where one is used."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
