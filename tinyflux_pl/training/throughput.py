"""Training speed and peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from tinyflux_pl.training.flow_module import FlowModule


class Throughput(Callback):
    """Images per second over all ranks by wall clock, without `paused` blocks.

    Loading, transfer and step count. A GPU runs behind the host: read the rate where the host has
    just waited for it, as at log points.
    """

    def __init__(self) -> None:
        self.images = 0
        self._elapsed = 0.0  # seconds of training before `_resumed_at`
        self._resumed_at: float | None = None  # None while the clock is stopped
        self._last_read = (0, 0.0)  # images and seconds
        self._device = torch.device("cpu")

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        self._device = pl_module.device

    def on_train_batch_start(self, *_: Any) -> None:
        if self._resumed_at is None:
            self._resumed_at = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: FlowModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.images += len(batch) * trainer.world_size

    def on_train_end(self, trainer: Trainer, pl_module: FlowModule) -> None:
        self._stop()

    def rate_since_last_call(self) -> float:
        """Images per second since the last call."""
        images, seconds = self._last_read
        self._last_read = (self.images, self.seconds)
        return (self._last_read[0] - images) / max(self._last_read[1] - seconds, 1e-9)

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        if self._resumed_at is None:
            return self._elapsed
        return self._elapsed + (time.perf_counter() - self._resumed_at)

    @property
    def images_per_second(self) -> float:
        """Mean rate of the run so far."""
        seconds = self.seconds
        return self.images / seconds if seconds else 0.0

    def _stop(self) -> None:
        if self._device.type == "cuda":  # queued steps belong to training
            torch.cuda.synchronize(self._device)
        self._elapsed = self.seconds
        self._resumed_at = None

    @contextmanager
    def paused(self) -> Generator[None]:
        """Exclude the block from the measurement."""
        running = self._resumed_at is not None
        if running:
            self._stop()
        try:
            yield
        finally:
            if running:
                self._resumed_at = time.perf_counter()


def paused(trainer: Trainer) -> AbstractContextManager[None]:
    """`paused` of the trainer's Throughput; without one, nothing happens."""
    measured = (c.paused() for c in trainer.callbacks if isinstance(c, Throughput))
    return next(measured, nullcontext())


def peak_memory_bytes() -> int:
    """Peak resident memory of this process, or of the accelerator where one is used."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
